"""Memory without a name in any file system (memfd_create(2)): made, sealed, found in other processes, copied."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from tinamou.system.closing import Closing, IfFailed
from tinamou.system.extents import extents

__all__ = [
    "NAME",
    "blank",
    "close_to_writers",
    "copied",
    "copy_all",
    "copy_changed",
    "is_closed",
    "mapped",
    "memory_of",
    "opened",
    "seal",
]

NAME = "ram"
"""What the memory of a machine is called in the list of a process' descriptors."""

_CHUNK = 1 << 20
_BLOCK = 64 << 10
_SIZED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_SEALED = _SIZED | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_FUTURE_WRITE = 0x10
"""F_SEAL_FUTURE_WRITE, which Python does not name."""
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_libc.memmove.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def blank(name: str, size: int = 0) -> int:
    """New memory: of a size that stays where one is said, so that who maps it never finds a part of it gone."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if size:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SIZED)
    return descriptor


def seal(descriptor: int) -> None:
    """From now on nobody can change its content or size, by whatever descriptor, and never again. Raises OSError.

    Opened for writing it can still be mapped privately.
    """
    if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALED != _SEALED:
        _add_seals(descriptor, _SEALED)


def close_to_writers(descriptor: int) -> None:
    """From now on nobody begins to write to it; mappings there are already go on. Raises OSError."""
    if not is_closed(descriptor):
        _add_seals(descriptor, _SIZED | _FUTURE_WRITE)


def _add_seals(descriptor: int, seals: int) -> None:
    writable = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)  # whoever may not write may not seal
    with Closing(writable):
        fcntl.fcntl(writable, fcntl.F_ADD_SEALS, seals)


def is_closed(descriptor: int) -> bool:
    """Whether nobody can begin to write to it: `close_to_writers` was called for it, or `seal`."""
    seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    return seals & _SIZED == _SIZED and bool(seals & (_FUTURE_WRITE | fcntl.F_SEAL_WRITE))


def opened(pid: int, number: int) -> int:
    """The nameless memory that a process has open under this number, for reading. Raises OSError.

    Whatever else is there is neither opened nor asked anything, which could wait for ever, or do something: it is told by
    the mount it lies on, and taken hold of before.
    """
    with Closing(os.open(f"/proc/{pid}/fd/{number}", os.O_PATH | os.O_CLOEXEC)) as held:
        with Closing(blank("mount")) as ours:
            if _mount(held) != _mount(ours):
                raise OSError(errno.EBADF, f"descriptor {number} of process {pid} is no memory")
        return os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_CLOEXEC)


def _mount(descriptor: int) -> str:
    """The mount an open file lies on (source: proc_pid_fdinfo(5))."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return next(line for line in lines if line.startswith("mnt_id:"))


def memory_of(pid: int, inode: int, size: int) -> tuple[int, list[int]]:
    """The memory that this user made (`blank`), for reading, and the numbers the process has it open under. Raises OSError.

    The process may be hostile: memory of its own making is passed over.
    """
    numbers = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(entry.readlink()).startswith("/memfd:") and entry.stat().st_ino == inode:
                numbers.append(int(entry.name))
    for number in numbers:
        with contextlib.suppress(OSError), Closing(opened(pid, number)) as found:
            if _is_blank(found, inode, size):
                return os.dup(found), sorted(numbers)
    raise FileNotFoundError(f"process {pid} has no memory of {size} bytes that was made for it")


def _is_blank(descriptor: int, inode: int, size: int) -> bool:
    status = os.fstat(descriptor)
    sized = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SIZED == _SIZED
    return sized and (status.st_uid, status.st_ino, status.st_size) == (os.geteuid(), inode, size)


def copied(source: int, name: str) -> int:
    """A copy of a whole memory, under a name of its own, in place of ``source``, which is closed. Raises OSError."""
    with Closing(source):
        copy = blank(name, os.fstat(source).st_size)
        with IfFailed(os.close, copy):
            copy_all(source, copy)
    return copy


def copy_all(source: int, target: int) -> int:
    """Copy all data to empty memory of the same size and return how many bytes. Raises OSError."""
    size = os.fstat(source).st_size
    copied = 0
    with mmap.mmap(source, size, prot=mmap.PROT_READ) as memory, memoryview(memory) as view:
        for begin, end in extents(source):
            for at in range(begin, end, _CHUNK):
                copied += os.pwrite(target, view[at : min(at + _CHUNK, end)], at)
    return copied


def copy_changed(source: int, target: int) -> int:
    """Make a copy equal to its source again, which nobody writes to meanwhile; returns how many bytes differed.

    What the copy has no space for yet is written and not mapped: there a lack of space is an error, not a deadly signal.
    """
    size = os.fstat(source).st_size
    changed = 0
    there = list(extents(target))
    with mapped(source, size, mmap.PROT_READ) as old, mapped(target, size, mmap.PROT_READ | mmap.PROT_WRITE) as new:
        for begin, end in extents(source):
            for at in range(begin, end, _BLOCK):
                length = min(_BLOCK, end - at)
                if not any(first <= at and at + length <= last for first, last in there):
                    os.pwrite(target, ctypes.string_at(old + at, length), at)
                elif not _libc.memcmp(old + at, new + at, length):
                    continue
                else:
                    _libc.memmove(new + at, old + at, length)
                changed += length
    return changed


@contextlib.contextmanager
def mapped(descriptor: int, size: int, protection: int) -> Iterator[int]:
    """The address its content has here, shared with whoever else has it, for as long as the block lasts. Raises OSError."""
    address = _libc.mmap(None, size, protection, mmap.MAP_SHARED, descriptor, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "memory cannot be mapped")
    try:
        yield address
    finally:
        _libc.munmap(address, size)
