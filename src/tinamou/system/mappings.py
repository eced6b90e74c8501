"""Memory as another process has it mapped: found, put on another file, compared with that file, read.

Source: proc_pid_maps(5), mremap(2), process_vm_readv(2), Documentation/admin-guide/mm/pagemap.rst of Linux.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tinamou.late import dataclass
from tinamou.system.inject import Caller, held

__all__ = ["Mapping", "Run", "changed", "clear_shelf", "mapping_of", "move", "on_shelf", "read_into", "write_from"]

Run = tuple[int, int]
"""Begin and end of a part of memory, in bytes from its beginning."""

_PAGE = mmap.PAGESIZE
_MAPS_BYTES = 16 << 20
_TABLE = 1 << 30
"""What one table of page tables covers: mappings at the same place modulo this are moved by moving tables."""
_SHELF = 1 << 44
"""Where a mapping waits that is to go: the kernel hands addresses out from above, so nothing else is there."""
_SHELF_END = 1 << 45
_SLICE = 64 << 20
_NORESERVE, _FIXED, _MAYMOVE, _MOVE_FIXED, _KEEP_OLD = 0x4000, 0x10, 1, 2, 4
_MERGEABLE, _HUGEPAGE, _DONTDUMP, _DONTFORK = 12, 14, 16, 10


@dataclass(frozen=True)
class Mapping:
    """Memory of a file in a process: address, size in bytes, inode, and whether what is written stays in the process."""

    address: int
    size: int
    inode: int
    private: bool


def mapping_of(pid: int, size: int) -> Mapping:
    """The one nameless file of this size that the process has mapped as a whole for writing. Raises OSError.

    What lies on the shelf is not looked at.
    """
    found = [one for one in _mappings(pid) if one.size == size and not _SHELF <= one.address < _SHELF_END]
    if len(found) != 1:
        raise OSError(errno.ENOENT, f"process {pid} has {len(found)} memories of {size} bytes in place of one")
    return found[0]


def on_shelf(pid: int) -> list[Mapping]:
    """What was moved and is not cleared yet."""
    return [one for one in _mappings(pid) if _SHELF <= one.address < _SHELF_END]


def _mappings(pid: int) -> list[Mapping]:
    with Path(f"/proc/{pid}/maps").open("rb") as file:
        text = file.read(_MAPS_BYTES).decode(errors="replace")
    found: list[Mapping] = []
    for line in text.splitlines():
        words = line.split(maxsplit=5)
        if len(words) < 6 or not words[5].startswith("/memfd:") or words[1][:2] != "rw":
            continue
        begin, end = (int(one, 16) for one in words[0].split("-"))
        at, inode, private = int(words[2], 16), int(words[4]), words[1][3] == "p"
        last = found[-1] if found else None
        if last and (last.inode, last.private, last.address + last.size, last.size) == (inode, private, begin, at):
            found[-1] = Mapping(last.address, last.size + end - begin, inode, private)
        elif not at or _SHELF <= begin < _SHELF_END:
            found.append(Mapping(begin, end - begin, inode, private))
    return found


def move(caller: Caller, mapping: Mapping, descriptor: int, *, merge: bool) -> None:
    """Map ``descriptor`` of the process privately where ``mapping`` is, which is put on the shelf. Raises OSError.

    It costs the same for any size, and the address is mapped at every moment: as it was, or anew.
    """
    size, shelf = mapping.size, _SHELF + mapping.address % _TABLE
    caller.call("mremap", mapping.address, size, size, _MAYMOVE | _MOVE_FIXED | _KEEP_OLD, shelf)
    try:
        caller.call(
            "mmap", mapping.address, size, mmap.PROT_READ | mmap.PROT_WRITE,
            mmap.MAP_PRIVATE | _FIXED | _NORESERVE, descriptor, 0,
        )  # fmt: skip
    except OSError:
        caller.call("mremap", shelf, size, size, _MAYMOVE | _MOVE_FIXED, mapping.address)
        raise
    for advice in (_HUGEPAGE, _DONTFORK, _DONTDUMP, *([_MERGEABLE] if merge else [])):
        try:
            caller.call("madvise", mapping.address, size, advice)
        except OSError as error:
            if error.errno != errno.EINVAL:  # not known to this kernel, as when QEMU asked for it
                raise


def clear_shelf(pid: int) -> None:
    """Unmap what was moved, a slice at a time: what takes long is done while the process runs. Raises OSError."""
    for one in on_shelf(pid):
        for at in range(one.address, one.address + one.size, _SLICE):
            with held(pid) as caller:
                caller.call("munmap", at, min(_SLICE, one.address + one.size - at))


_SCAN = 0xC0606610
_PRESENT, _SWAPPED, _FILE = 1 << 3, 1 << 4, 1 << 2
_REGIONS = 65536


class _Scan(ctypes.Structure):
    """struct pm_scan_arg of linux/fs.h."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("size", "flags", "start", "end", "walk_end", "vec", "vec_len", "max_pages")),
        *((name, ctypes.c_uint64) for name in ("category_inverted", "category_mask", "category_anyof_mask", "return_mask")),
    )


def changed(pid: int, mapping: Mapping) -> list[Run]:
    """The parts of a private mapping that are the process' own, because it wrote to them; the process stands still.

    Raises OSError.
    """
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as file:
        try:
            return _scanned(file.fileno(), mapping)
        except OSError as error:
            if error.errno != errno.ENOTTY:
                raise
        return _read(file.fileno(), mapping)


def _scanned(pagemap: int, mapping: Mapping) -> list[Run]:
    vector = array.array("Q", bytes(24 * _REGIONS))
    begin, end = mapping.address, mapping.address + mapping.size
    runs: list[Run] = []
    while begin < end:
        scan = _Scan(
            size=ctypes.sizeof(_Scan), start=begin, end=end, vec=vector.buffer_info()[0], vec_len=_REGIONS,
            category_inverted=_FILE, category_mask=_FILE, category_anyof_mask=_PRESENT | _SWAPPED, return_mask=_PRESENT,
        )  # fmt: skip
        count = fcntl.ioctl(pagemap, _SCAN, scan)
        first, last = vector[0 : 3 * count : 3], vector[1 : 3 * count : 3]
        runs += [(one - mapping.address, other - mapping.address) for one, other in zip(first, last, strict=True)]
        if scan.walk_end <= begin:
            raise OSError(errno.EIO, "the kernel does not go on with the pages of a process")
        begin = scan.walk_end
    return runs


def _read(pagemap: int, mapping: Mapping) -> list[Run]:
    """The same of older kernels, by a word for each page: bit 63 present, 62 swapped, 61 of a file."""
    pages = range(mapping.address // _PAGE, (mapping.address + mapping.size) // _PAGE)
    words = array.array("Q")
    for at in range(pages.start, pages.stop, 1 << 17):
        words.frombytes(os.pread(pagemap, 8 * min(1 << 17, pages.stop - at), 8 * at))
    ours = [index for index, word in enumerate(words) if word >> 62 and not word >> 61 & 1]
    edges = [at for at, (one, other) in enumerate(pairwise(ours), 1) if other != one + 1]
    return [
        (ours[begin] * _PAGE, (ours[end - 1] + 1) * _PAGE)
        for begin, end in pairwise([0, *edges, len(ours)])
        if ours
    ]  # fmt: skip


_PARTS = 1024
"""UIO_MAXIOV: how many parts one call takes."""
_libc = ctypes.CDLL(None, use_errno=True)
for _call in (_libc.process_vm_readv, _libc.process_vm_writev):
    _call.restype = ctypes.c_ssize_t
    _call.argtypes = (ctypes.c_int, *(ctypes.c_void_p, ctypes.c_ulong) * 2, ctypes.c_ulong)


def read_into(pid: int, mapping: Mapping, runs: Sequence[Run], places: Sequence[int]) -> None:
    """Copy parts of the process' memory to addresses of ours. Raises OSError."""
    _carry("process_vm_readv", pid, mapping, runs, places)


def write_from(pid: int, mapping: Mapping, runs: Sequence[Run], places: Sequence[int]) -> None:
    """Write parts of the process' memory from addresses of ours. Raises OSError."""
    _carry("process_vm_writev", pid, mapping, runs, places)


def _carry(name: str, pid: int, mapping: Mapping, runs: Sequence[Run], places: Sequence[int]) -> None:
    for at in range(0, len(runs), _PARTS):
        some = runs[at : at + _PARTS]
        theirs = array.array("Q", [word for begin, end in some for word in (mapping.address + begin, end - begin)])
        pairs = zip(places[at : at + _PARTS], some, strict=True)
        ours = array.array("Q", [word for place, (begin, end) in pairs for word in (place, end - begin)])
        count, wanted = len(some), sum(end - begin for begin, end in some)
        done = int(getattr(_libc, name)(pid, ours.buffer_info()[0], count, theirs.buffer_info()[0], count, 0))
        if done != wanted:
            code = ctypes.get_errno() if done < 0 else errno.EFAULT
            raise OSError(code, f"the memory of process {pid} cannot be carried over: {os.strerror(code)}")
