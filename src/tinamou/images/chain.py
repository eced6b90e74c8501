"""The files one image is made of, from the top to the last backing file, and whether each may be opened."""

from __future__ import annotations

import heapq
import os
import stat
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

from tinamou.errors import ImageError
from tinamou.images.formats import HEAD, TAIL, detect_format
from tinamou.late import dataclass
from tinamou.system.closing import Closing
from tinamou.system.paths import image_dir, state_dir
from tinamou.system.qcow2 import Header, Qcow2Error, parse_header
from tinamou.units import Size

__all__ = ["MAX_DEPTH", "Layer", "may_open", "read_below", "read_chain", "read_layer", "verify_tables"]

MAX_DEPTH = 256
_OFFSET = 0x00FFFFFFFFFFFE00
_MOST_READ = 16 << 20


@dataclass(frozen=True)
class Layer:
    """One file of a chain: its resolved path, format, length in bytes, and for qcow2 its header; ``packed`` says that it is
    a vmdk whose data is (its flags, bit 16: VMware Virtual Disk Format 5.0)."""

    path: str
    format: str
    length: int
    identity: tuple[int, int, int, int, int]
    header: Header | None = None
    packed: bool = False


def read_chain(path: str | Path, *, trusted: Sequence[Path] = (), format: str = "") -> tuple[Layer, ...]:
    """The layers of an image, top first.

    A backing file must lie in the folder of the file naming it, among the images or machines of tinamou, or below one of
    ``trusted``. Raises ImageError for a missing, foreign, looping, damaged or unsafe layer, always naming the file.
    """
    layers: list[Layer] = []
    seen: set[tuple[int, int]] = set()
    layer = read_layer(Path(path), format)
    while True:
        if layer.identity[:2] in seen:
            raise ImageError(f"the chain of {path} is a loop", why=f"{layers[-1].path} leads back to {layer.path}")
        seen.add(layer.identity[:2])
        layers.append(layer)
        if len(layers) > MAX_DEPTH:
            raise ImageError(
                f"the chain of {path} is deeper than {MAX_DEPTH} files", fix="flatten it: tinamou snapshot flatten"
            )
        if layer.header is None or not layer.header.backing_file:
            return tuple(layers)
        layer = read_below(layer, trusted)


_TELLING = (".qcow2", ".vhdx", ".vdi", ".iso")


def read_layer(path: Path, declared: str = "", named_by: str = "") -> Layer:
    """One file on its own: exists, is a file or block device, not empty, and its header holds. Raises ImageError."""
    named = f"the backing file of {named_by}, {path}," if named_by else f"{path}"
    try:
        status = path.stat()
        _refuse_kind(named, status)
        with open(path, "rb", buffering=0, opener=_at_once) as file:
            length = file.seek(0, os.SEEK_END)
            head = os.pread(file.fileno(), HEAD, 0)
            tail = os.pread(file.fileno(), TAIL, max(0, length - TAIL))
            if length == 0:
                raise ImageError(f"{named} is empty", why="it has 0 bytes", fix="fetch or make the image again")
            found = declared or detect_format(str(path), head, tail)
            if not declared and path.suffix == ".raw" and found not in ("raw", "iso"):
                why = "a guest can write such a header into its raw disk, to have other files opened at its next start"
                raise ImageError(
                    f"{named} is called raw and begins like {found}", why=why, fix="say format = raw, or rename it"
                )
            if not declared and found == "raw" and path.suffix in _TELLING:
                why = f"nothing in it is of the format {path.suffix} stands for: it is damaged, or another file"
                raise ImageError(f"{named} is not what its name says", why=why, fix="fetch or make the image again")
            header = _header(named, file.fileno(), head, length) if found == "qcow2" else None
    except FileNotFoundError as error:
        raise ImageError(f"{named} does not exist", fix=_instead(path)) from error
    except OSError as error:
        raise ImageError(f"{named} cannot be opened", why=error.strerror or str(error)) from error
    identity = (status.st_dev, status.st_ino, length, status.st_mtime_ns, status.st_ctime_ns)
    packed = found == "vmdk" and head[:4] == b"KDMV" and bool(int.from_bytes(head[8:12], "little") >> 16 & 1)
    return Layer(os.path.realpath(path), found, length, identity, header, packed)


def _at_once(path: str, flags: int) -> int:
    """Open without waiting: where a file was, a pipe may be by now, which nobody writes to."""
    return os.open(path, flags | os.O_NONBLOCK)


def _instead(path: Path) -> str:
    """What to do about a file that is not there; what reads like a size was meant as one."""
    try:
        size = "" if path.suffix or path.name.isdecimal() else f"{Size.parse(path.name) and path.name}"
    except ValueError:
        size = ""
    return f"a new, empty disk is size={size}" if size else "put the file back, or name another image"


def may_open(named_by: str, target: str, trusted: Sequence[Path] = ()) -> bool:
    """Whether ``target`` (resolved) lies where a file that ``named_by`` points to may lie."""
    roots = [Path(named_by).parent, image_dir(), state_dir(), *trusted]
    return any(Path(target).is_relative_to(os.path.realpath(root)) for root in roots)


def _refuse_kind(named: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{named} is a folder, not an image")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISBLK(status.st_mode):
        raise ImageError(f"{named} is neither a file nor a block device")


def _header(named: str, descriptor: int, head: bytes, length: int) -> Header:
    try:
        bits = int.from_bytes(head[20:24], "big")
        header = parse_header(os.pread(descriptor, 1 << bits, 0) if 16 < bits <= 21 else head)
    except Qcow2Error as error:
        raise ImageError(f"{named} has a damaged qcow2 header", why=str(error), fix="restore it from a copy") from error
    for name, end in (("L1 table", header.l1_offset + header.l1_size * 8), ("refcount table", header.refcount_offset + 8)):
        if end > length:
            raise ImageError(f"{named} is truncated", why=f"its {name} lies at byte {end}, the file has {length}")
    if header.corrupt:
        raise ImageError(f"{named} is marked corrupt by QEMU", fix="tinamou check --repair keeps a copy and repairs it")
    if header.data_file is not None:
        why = f"an image file can name any file of this host there ({header.data_file or 'unnamed'})"
        raise ImageError(f"{named} keeps its data in another file", why=why, fix="convert it with qemu-img convert -O qcow2")
    return header


def read_below(layer: Layer, trusted: Sequence[Path] = ()) -> Layer:
    """The file that one with a backing file rests on, checked as in `read_chain`. Raises ImageError."""
    assert layer.header is not None
    return read_layer(_backing_of(layer, trusted), layer.header.backing_format, layer.path)


def _backing_of(layer: Layer, trusted: Sequence[Path]) -> Path:
    header = layer.header
    assert header is not None
    name = header.backing_file
    plain = name.removeprefix("file:")
    if ":" in plain.partition("/")[0]:  # QEMU takes what stands before it for a driver
        raise ImageError(f"{layer.path} has a backing file that is no plain path", why=name[:200])
    if not header.backing_format:
        raise ImageError(
            f"{layer.path} does not say which format its backing file has",
            why="guessing it would let a guest that wrote a header into a raw disk choose what is opened",
            fix=f"qemu-img rebase -u -b {name} -F FORMAT {layer.path}",
        )
    backing = Path(layer.path).parent / plain
    if not may_open(layer.path, os.path.realpath(backing), trusted):
        raise ImageError(
            f"{layer.path} has a backing file outside its folder: {name}",
            why="an image from elsewhere could name any file of this host, and the guest could read it",
            fix="put both into one folder, or import the image: tinamou image import",
        )
    return backing


def verify_tables(layer: Layer, *, tables: int = 2048) -> None:
    """Whether every L2 table lies inside the file, and every cluster named by those tables that lie last in it.

    What was cut off was at the end: ``tables`` of them are read, and no more than 16 MiB. Raises ImageError.
    """
    if layer.header is None:
        return
    with Closing(os.open(layer.path, os.O_RDONLY | os.O_CLOEXEC)) as descriptor:
        for offset, entry in _references(descriptor, layer.header, tables):
            if entry >= layer.length or entry % (1 if offset else layer.header.cluster_size):
                what = "a cluster" if offset else "an L2 table"
                raise ImageError(
                    f"{layer.path} is truncated or damaged",
                    why=f"{what} is said to be at byte {entry}, the file has {layer.length}",
                    fix="restore it from a copy; tinamou check shows what is left",
                )


def _references(descriptor: int, header: Header, tables: int) -> Iterator[tuple[int, int]]:
    """The offset of every L2 table as ``(0, offset)``, and the furthest cluster of the last ones as ``(table, offset)``."""
    l2_tables = _entries(descriptor, header.l1_offset, header.l1_size)
    for entry in l2_tables:
        if entry:
            yield 0, entry & _OFFSET
    most = 0 if header.extended_l2 else min(tables, _MOST_READ >> header.cluster_bits)
    for table in heapq.nlargest(most, (entry & _OFFSET for entry in l2_tables)):
        if table:
            yield table, _furthest(_entries(descriptor, table, header.cluster_size // 8), header.cluster_bits)


def _furthest(entries: array[int], cluster_bits: int) -> int:
    packed = (1 << (62 - (cluster_bits - 8))) - 1
    return max(entry & packed if entry & 1 << 62 else entry & _OFFSET for entry in entries)


def _entries(descriptor: int, offset: int, count: int) -> array[int]:
    data = os.pread(descriptor, count * 8, offset)
    words = array("Q", data.ljust(count * 8, b"\0"))
    words.byteswap()
    return words
