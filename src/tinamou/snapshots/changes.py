"""What a machine changed of the memory it shares with its forks: read while it stands still, written into each new fork.

::

    u64 count, then for each part u64 begin, u64 end in bytes of guest memory; the parts' bytes from the next page on
"""

from __future__ import annotations

import array
import mmap
import os
import sys
from collections.abc import Sequence

from tinamou.system import ram
from tinamou.system.closing import IfFailed
from tinamou.system.mappings import Mapping, Run, read_into, write_from

__all__ = ["apply", "apply_to", "room_for", "save"]

_WORD = 8
_CHUNK = 1 << 20


def room_for(size: int) -> int:
    """Empty memory with pages for about so many bytes of changes already. Raises OSError."""
    descriptor = os.memfd_create("changes", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with IfFailed(os.close, descriptor):
        os.posix_fallocate(descriptor, 0, max(size, mmap.PAGESIZE))
    return descriptor


def save(descriptor: int, pid: int, mapping: Mapping, runs: Sequence[Run]) -> None:
    """Write what those parts of the process' memory are, and nothing else. Raises OSError."""
    words = array.array("Q", [len(runs), *(edge for run in runs for edge in run)])
    first = _first(len(runs))
    size = first + sum(end - begin for begin, end in runs)
    if size > os.fstat(descriptor).st_size:
        os.posix_fallocate(descriptor, 0, size)
    os.ftruncate(descriptor, size)
    os.pwrite(descriptor, words, 0)
    if runs:
        with ram.mapped(descriptor, size, mmap.PROT_READ | mmap.PROT_WRITE) as address:
            read_into(pid, mapping, runs, _places(runs, address + first))


def apply(descriptor: int, pid: int, mapping: Mapping) -> None:
    """Write them into the memory of another process, which does not use it yet. Raises OSError."""
    runs, first = _parts(descriptor)
    if runs:
        with ram.mapped(descriptor, os.fstat(descriptor).st_size, mmap.PROT_READ) as address:
            write_from(pid, mapping, runs, _places(runs, address + first))


def apply_to(descriptor: int, memory: int) -> None:
    """Write them into a copy of the memory. Raises OSError."""
    runs, at = _parts(descriptor)
    for begin, end in runs:
        for there in range(begin, end, _CHUNK):
            size = min(_CHUNK, end - there)
            os.pwrite(memory, os.pread(descriptor, size, at), there)
            at += size


def _parts(descriptor: int) -> tuple[list[Run], int]:
    """The parts, and where the first one's bytes are."""
    count = int.from_bytes(os.pread(descriptor, _WORD, 0), sys.byteorder)
    words = array.array("Q", os.pread(descriptor, 2 * _WORD * count, _WORD))
    return list(zip(words[::2], words[1::2], strict=True)), _first(count)


def _first(count: int) -> int:
    """Where the bytes begin: on a page."""
    return -(-_WORD * (1 + 2 * count) // mmap.PAGESIZE) * mmap.PAGESIZE


def _places(runs: Sequence[Run], address: int) -> list[int]:
    places = []
    for begin, end in runs:
        places.append(address)
        address += end - begin
    return places
