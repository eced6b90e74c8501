"""System calls made by another process, at our word: ptrace(2) holds it for the moment, and it goes on as before.

Source: ptrace(2), seccomp(2), arch/x86/kernel/signal.c of Linux for how an interrupted call is begun again. Registers are
known for x86_64 alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

__all__ = ["Caller", "begin", "held"]

T = TypeVar("T")

_SEIZE, _INTERRUPT, _OPTIONS, _GETREGS, _SETREGS, _STEP, _DETACH = 0x4206, 0x4207, 0x4200, 12, 13, 9, 17
_EXITKILL = 1 << 20
"""It must not run on with our registers in it: where we end inside, the kernel ends it."""
_WALL = 0x40000000
_WAIT_SECONDS = 5.0
_GLANCE_SECONDS = 0.00002
_SYSCALL = b"\x0f\x05"
_NUMBERS = {"close": 3, "mmap": 9, "munmap": 11, "mremap": 25, "madvise": 28, "getpid": 39, "dup3": 292}
_REGISTERS = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
)
_AGAIN = (512, 513, 514, 516)
"""How the kernel says to a tracer alone that a signal came, and the call is to be made again (linux/errno.h)."""
_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


class _Registers(ctypes.Structure):
    """struct user_regs_struct of x86_64."""

    _fields_ = tuple((name, ctypes.c_ulong) for name in _REGISTERS.split())


def begin(work: Callable[[], T]) -> Future[T]:
    """Do it in a thread of its own: ptrace is a matter of threads, and the end of one lets go of all that it holds."""
    future: Future[T] = Future()

    def do() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=do, name="ptrace").start()
    return future


@contextlib.contextmanager
def held(pid: int) -> Iterator[Caller]:
    """The process' first thread, held still; the block is inside of one `begin`. Raises OSError.

    Its other threads go on. A process that does not stand still in time is left as it is.
    """
    where = _instruction(pid)
    _ptrace(_SEIZE, pid)
    caller = None
    try:
        _ptrace(_INTERRUPT, pid)
        _stopped(pid)
        caller = Caller(pid, where)
        yield caller
    finally:
        if caller is not None:
            caller.release()


class Caller:
    """A process that is held, and what it can be made to do."""

    def __init__(self, pid: int, where: int) -> None:
        self._pid, self._where = pid, where
        self._saved, self._signals = _Registers(), list[int]()
        _ptrace(_OPTIONS, pid, 0, _EXITKILL)
        _ptrace(_GETREGS, pid, 0, ctypes.addressof(self._saved))

    def call(self, name: str, *arguments: int) -> int:
        """Have it make one system call; returns what that returned. Raises OSError where that failed."""
        registers = _Registers.from_buffer_copy(self._saved)
        registers.rip, registers.orig_rax, registers.rax = self._where, ctypes.c_ulong(-1).value, _NUMBERS[name]
        for register, value in zip(_ARGUMENTS, arguments, strict=False):
            setattr(registers, register, ctypes.c_ulong(value).value)
        told = _Registers.from_buffer_copy(registers)
        while registers.rip == self._where or -ctypes.c_long(registers.rax).value in _AGAIN:
            _ptrace(_SETREGS, self._pid, 0, ctypes.addressof(told))
            _ptrace(_STEP, self._pid)
            came = _stopped(self._pid)
            if came != signal.SIGTRAP:
                self._signals.append(came)  # given back at the end: it came before the step, or interrupted the call
            _ptrace(_GETREGS, self._pid, 0, ctypes.addressof(registers))
        if registers.rip != self._where + len(_SYSCALL):
            raise OSError(errno.EIO, f"process {self._pid} did not do what it was told")
        answer = int(ctypes.c_long(registers.rax).value)
        if -4096 < answer < 0:
            raise OSError(-answer, f"{name} of process {self._pid}: {os.strerror(-answer)}")
        return answer

    def release(self) -> None:
        """Give it its registers back, and the signals that came meanwhile, and let it go on."""
        with contextlib.suppress(ProcessLookupError):
            _ptrace(_SETREGS, self._pid, 0, ctypes.addressof(self._saved))
            for number in self._signals:
                _libc.tgkill(self._pid, self._pid, number)
            _ptrace(_DETACH, self._pid)


def _instruction(pid: int) -> int:
    """Where in the process the instruction for a system call is: in the kernel's own page of code (vdso(7))."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith("[vdso]"):
            begin, end = (int(one, 16) for one in line.split()[0].split("-"))
            with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
                memory.seek(begin)
                at = memory.read(end - begin).find(_SYSCALL)
            if at >= 0:
                return begin + at
    raise OSError(errno.ENOENT, f"process {pid} has no page of the kernel's with a system call in it")


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, pid, address, data) == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"process {pid} cannot be held: {os.strerror(code)}")


def _stopped(pid: int) -> int:
    """Wait until it stands still; returns the signal it does so by. Raises OSError when it ended, or takes too long."""
    until = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG | _WALL)
        if found == pid:
            if os.WIFSTOPPED(status):
                return os.WSTOPSIG(status)
            raise ProcessLookupError(errno.ESRCH, f"process {pid} ended")
        time.sleep(_GLANCE_SECONDS)
    raise TimeoutError(errno.ETIMEDOUT, f"process {pid} does not stand still within {_WAIT_SECONDS:g} s")
