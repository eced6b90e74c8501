"""A process that is made to do what an attacker who took it over would do: ptrace(2) makes its system calls for it.

The process is the real one, behind every wall that stands around it: nothing of it is imitated. Each attack runs in a copy
of it, made by a fork the process's own filter would refuse (PTRACE_O_SUSPEND_SECCOMP lets that one through): the copy has
the same user, capabilities, namespaces, control group, descriptors, limits and filters, and may be killed by them; the
process goes on.

x86-64 alone, for root, on a kernel with CONFIG_CHECKPOINT_RESTORE. Sources: ptrace(2), linux/ptrace.h, sys/user.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import errno
import functools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long

_GETREGS, _SETREGS, _DETACH, _SYSCALL = 12, 13, 17, 24
_SETOPTIONS, _GETEVENTMSG, _SEIZE, _INTERRUPT = 0x4200, 0x4201, 0x4206, 0x4207
_SYSGOOD, _FORK, _VFORK, _CLONE, _EXITKILL, _SUSPEND_SECCOMP = 1, 2, 4, 8, 1 << 20, 1 << 21
_FAMILY = _SYSGOOD | _FORK | _VFORK | _CLONE
_EVENTS_OF_BIRTH = (1, 2, 3)
_WALL = 0x40000000
"""__WALL: threads too."""
_REGISTERS = [
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax", "rip",
    "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
]  # fmt: skip
_ERESTARTNOINTR = 513
"""Seen by tracers alone (linux/errno.h)."""
_ROOM = 1 << 20
"""Bytes of memory for what the calls point at."""
_PATIENCE = 15.0
"""Seconds a system call may take."""

_Registers = ctypes.c_ulonglong * len(_REGISTERS)


class Refused(Exception):
    """A system call failed, and with which errno."""

    def __init__(self, number: int, call: str) -> None:
        super().__init__(f"{call}: {errno.errorcode.get(number, number)}")
        self.number, self.call = number, call


class Killed(Exception):
    """The copy was killed over a system call, by this signal."""

    def __init__(self, number: int, call: str) -> None:
        super().__init__(f"{call}: {signal.Signals(number).name}")
        self.number, self.call = number, call


class Stuck(Exception):
    """A system call did not return in time."""


def _ptrace(request: int, pid: int, address: int = 0, data: object = 0) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {request:#x} of process {pid}: {os.strerror(number)}")


@functools.cache
def number_of(name: str) -> int:
    """The number of a system call, which libseccomp knows: QEMU needs it as well."""
    library = ctypes.CDLL(ctypes.util.find_library("seccomp") or "libseccomp.so.2")
    number: int = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        raise ValueError(f"libseccomp knows no system call {name}")
    return number


class _Traced:
    """One stopped thread: its registers, its memory, and system calls it makes."""

    def __init__(self, pid: int, instruction: int, registers: _Registers | None = None, room: int = 0) -> None:
        self.pid, self._instruction, self._room, self._used = pid, instruction, room, 0
        self._saved = registers or self._registers()
        self.children: list[int] = []

    def _registers(self) -> _Registers:
        registers = _Registers()
        _ptrace(_GETREGS, self.pid, 0, ctypes.byref(registers))
        return registers

    def _raw(self, name: str, *arguments: int) -> int:
        """What the kernel returns, a negative errno included. Raises Killed, Stuck."""
        registers = _Registers(*self._saved)
        said = dict.fromkeys(("rdi", "rsi", "rdx", "r10", "r8", "r9"), 0)
        said |= dict(zip(said, arguments, strict=False))
        said |= {"rax": number_of(name), "orig_rax": (1 << 64) - 1, "rip": self._instruction}
        for register, value in said.items():
            registers[_REGISTERS.index(register)] = value & ((1 << 64) - 1)
        _ptrace(_SETREGS, self.pid, 0, ctypes.byref(registers))
        self._to_stop(name)
        self._to_stop(name)
        value = self._registers()[_REGISTERS.index("rax")]
        if value == number_of(name) and self._pending(signal.SIGSYS):
            raise Killed(signal.SIGSYS, name)  # SECCOMP_RET_TRAP: the call was not made, the signal is about to be delivered
        return int(ctypes.c_longlong(value).value)

    def _pending(self, number: int) -> bool:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        mask = next(line for line in lines if line.startswith("SigPnd:")).split()[1]
        return bool(int(mask, 16) >> (number - 1) & 1)

    def _to_stop(self, name: str) -> None:
        """On to the beginning or the end of a system call; what it gives birth to is held."""
        _ptrace(_SYSCALL, self.pid)
        deadline = time.monotonic() + _PATIENCE
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG | _WALL)
            if not pid:
                if time.monotonic() > deadline:
                    raise Stuck(name)
                time.sleep(0.0005)
                continue
            if os.WIFSIGNALED(status):
                raise Killed(os.WTERMSIG(status), name)
            if os.WIFEXITED(status):
                raise Killed(signal.SIGKILL, name)
            if os.WSTOPSIG(status) == signal.SIGTRAP | 0x80:
                return
            if os.WSTOPSIG(status) == signal.SIGSYS:
                raise Killed(signal.SIGSYS, name)
            if status >> 16 in _EVENTS_OF_BIRTH:
                born = ctypes.c_ulong()
                _ptrace(_GETEVENTMSG, self.pid, 0, ctypes.byref(born))
                self.children.append(born.value)
            _ptrace(_SYSCALL, self.pid)

    def call(self, name: str, *arguments: int | bytes | str | bytearray) -> int:
        """Make a system call and return what it returns. Raises Refused, Killed, Stuck.

        Text and bytes are put into its memory, and their address is passed; a bytearray is filled with what is there after.
        """
        words, filled = [], []
        for argument in arguments:
            if isinstance(argument, int):
                words.append(argument)
                continue
            address = self.put(argument.encode() + b"\0" if isinstance(argument, str) else bytes(argument))
            words.append(address)
            if isinstance(argument, bytearray):
                filled.append((address, argument))
        result = self._raw(name, *words)
        self._used = 0
        if -4096 < result < 0:
            raise Refused(-result, name)
        for address, target in filled:
            target[:] = self.peek(address, len(target))
        return result

    def put(self, data: bytes) -> int:
        """Put bytes into its memory until the end of the next call but for those put before it; the address."""
        address = self._room + self._used
        assert self._used + len(data) <= _ROOM
        with Path(f"/proc/{self.pid}/mem").open("r+b", buffering=0) as memory:
            memory.seek(address)
            memory.write(data)
        self._used += (len(data) + 15) & ~15
        return address

    def room(self, at: int) -> int:
        """An address in its own memory that calls do not use, ``at`` bytes from the end of what there is."""
        return self._room + _ROOM - at

    def poke(self, address: int, data: bytes) -> None:
        """Write into its memory."""
        with Path(f"/proc/{self.pid}/mem").open("r+b", buffering=0) as memory:
            memory.seek(address)
            memory.write(data)

    def peek(self, address: int, length: int) -> bytes:
        """Read from its memory."""
        with Path(f"/proc/{self.pid}/mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(length)


class Copy(_Traced):
    """A copy of a process with all its walls, which ends with the block it is used in."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in (*self.children, self.pid):
            _reap(pid)


def _reap(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            found, status = os.waitpid(pid, os.WNOHANG | _WALL)
        except ChildProcessError:
            return
        if found and not os.WIFSTOPPED(status):
            return
        time.sleep(0.0005)


class Puppet(_Traced):
    """A process that is held while copies of it attack. Raises OSError where it cannot be held.

    ``free``: its own filter is not in force while it is held, which copies need; without, it makes calls itself.
    """

    def __init__(self, pid: int, *, free: bool = True) -> None:
        _ptrace(_SEIZE, pid, 0, _FAMILY | (_SUSPEND_SECCOMP if free else 0))
        _ptrace(_INTERRUPT, pid)
        os.waitpid(pid, _WALL)
        super().__init__(pid, _system_call_instruction(pid))
        self._room = self._raw("mmap", 0, _ROOM, 3, 0x22, (1 << 64) - 1, 0)
        if self._room < 0:
            raise OSError(-self._room, "no memory in the process")
        # Where it unshared its process namespace, the first copy is that namespace's init, and no other outlives it.
        self._first = self._born() if free else (0, 0)

    def _born(self) -> tuple[int, int]:
        """A copy that stands still: its number here, and its number where the process is."""
        self.children.clear()
        result = -_ERESTARTNOINTR
        while result == -_ERESTARTNOINTR:  # a signal came meanwhile
            result = self._raw("clone", signal.SIGCHLD)
        if result < 0:
            raise OSError(-result, f"process {self.pid} cannot be copied: {os.strerror(-result)}")
        born = self.children.pop()
        os.waitpid(born, _WALL)
        _ptrace(_SETOPTIONS, born, 0, _FAMILY | _EXITKILL)
        return born, result

    def _buried(self, born: tuple[int, int]) -> None:
        """The copy is dead, and the process, whose child it was, has taken note."""
        _reap(born[0])
        self._raw("wait4", born[1], 0, _WALL, 0)

    @contextlib.contextmanager
    def copy(self) -> Iterator[Copy]:
        """A copy of it, which dies with the block; its filters are in force."""
        born = self._born()
        try:
            with Copy(born[0], self._instruction, self._saved, self._room) as made:
                yield made
        finally:
            self._buried(born)

    def release(self) -> None:
        """Let it go on as if nothing had been."""
        if self._first[0]:
            self._buried(self._first)
        self._raw("munmap", self._room, _ROOM)
        _ptrace(_SETREGS, self.pid, 0, ctypes.byref(self._saved))
        _ptrace(_DETACH, self.pid)


def _system_call_instruction(pid: int) -> int:
    """The address of a ``syscall`` in the code of the process; the vdso has one."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith("[vdso]"):
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
                memory.seek(begin)
                return begin + memory.read(end - begin).index(b"\x0f\x05")
    raise OSError(errno.ENOEXEC, f"process {pid} has no vdso")
