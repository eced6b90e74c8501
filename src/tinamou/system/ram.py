"""Copying the memory of a running machine: everything once, then what changed, holes staying holes."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["copy_all", "copy_changed", "extents", "memory_of"]

_CHUNK = 1 << 20
_BLOCK = 64 << 10
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_libc.memmove.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def memory_of(pid: int, name: str) -> int:
    """A descriptor of the nameless memory ``name`` a process has open (memfd_create(2)). Raises OSError."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(entry.readlink()) == f"/memfd:{name} (deleted)":
                return os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
    raise FileNotFoundError(f"process {pid} has no memory {name}")


def extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that hold data, as begin and end (lseek(2), SEEK_DATA)."""
    position = 0
    while True:
        try:
            begin = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError:
            return
        position = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield begin, position


def copy_all(source: int, target: int) -> int:
    """Copy all data to an empty file and return how many bytes. Raises OSError, ENOSPC included."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
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
    with _mapped(source, size, mmap.PROT_READ) as old, _mapped(target, size, mmap.PROT_READ | mmap.PROT_WRITE) as new:
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
def _mapped(descriptor: int, size: int, protection: int) -> Iterator[int]:
    address = _libc.mmap(None, size, protection, mmap.MAP_SHARED, descriptor, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "memory cannot be mapped")
    try:
        yield address
    finally:
        _libc.munmap(address, size)
