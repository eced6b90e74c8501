"""Reading files of an NTFS volume inside a disk: found by their path, read piece by piece, nothing is ever written.

Source: Linux kernel, fs/ntfs3/ntfs.h (the structures on disk). What is packed, encrypted or of an unknown form is refused as
`Unreadable`; every table is bounded, whatever the volume says of itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from tinamou.images.blocks import Blocks, Unreadable
from tinamou.late import dataclass

__all__ = ["NtfsFile", "NtfsVolume"]

_ROOT, _VOLUME = 5, 3
_ATTRIBUTES, _DATA, _INDEX_ROOT, _INDEX_BLOCKS, _VOLUME_FLAGS = 0x20, 0x80, 0x90, 0xA0, 0x70
_MOST_RUNS = 1 << 16
_MOST_LIST = 1 << 18
_MOST_EXTENTS = 512
_DEEPEST = 12
_CHILD, _LAST = 1, 2
_IN_USE = 1
_DIRTY = 1
_PACKED, _ENCRYPTED = 0x00FF, 0x4000
_NUMBER = (1 << 48) - 1


@dataclass(frozen=True)
class _Run:
    """Clusters that lie side by side: the first one's number in the file, on the volume (-1: a hole), and how many."""

    inside: int
    place: int
    count: int


@dataclass(frozen=True)
class _Attribute:
    """One attribute, or an extent of one: its kind and name; what it holds itself, or where that lies and how long it is."""

    kind: int
    name: str
    flags: int
    content: bytes | None
    runs: tuple[_Run, ...] = ()
    size: int = 0
    valid: int = 0


class NtfsVolume:
    """A volume that begins ``start`` bytes into the disk. Raises Unreadable for one that is no NTFS, or damaged."""

    def __init__(self, blocks: Blocks, start: int) -> None:
        sector = blocks.read(start, 512)
        if len(sector) < 512 or sector[3:11] != b"NTFS    " or sector[510:] != b"\x55\xaa":
            raise Unreadable("it is no NTFS volume")
        width, clusters = struct.unpack_from("<HB", sector, 11)
        per_cluster: int = clusters if clusters <= 0x80 else 1 << (256 - clusters & 31)
        if width not in (512, 1024, 2048, 4096) or not per_cluster or width * per_cluster > 2 << 20:
            raise Unreadable("its boot sector has no size of a cluster")
        self._blocks, self._start = blocks, start
        self._cluster = int(width) * per_cluster
        self._record = _sized(sector[64], self._cluster)
        table = struct.unpack_from("<Q", sector, 48)[0]
        first = self._attributes(self._read(table * self._cluster, self._record), 0)
        if (data := _joined(first, _DATA, "")) is None:
            raise Unreadable("its table of files cannot be read")
        self._table = NtfsFile(self, data)
        whole = self._whole(first, 0)
        self._table = NtfsFile(self, _joined(whole, _DATA, "") or data)

    @property
    def dirty(self) -> bool:
        """Whether Windows was not done with it when it was last written. Raises Unreadable."""
        found = _joined(self._load(_VOLUME), _VOLUME_FLAGS, "")
        if found is None or found.content is None or len(found.content) < 12:
            raise Unreadable("it does not say whether it is clean")
        return bool(struct.unpack_from("<H", found.content, 10)[0] & _DIRTY)

    def open(self, path: Sequence[str]) -> NtfsFile | None:
        """The file of that path, told by its name in any case; None where there is none. Raises Unreadable."""
        number = _ROOT
        for name in path:
            found = self._find(number, name)
            if found is None:
                return None
            number = found
        data = _joined(self._load(number), _DATA, "")
        return NtfsFile(self, data) if data else None

    def read_clusters(self, place: int, inside: int, length: int) -> bytes:
        """Bytes from ``inside`` a cluster on; zeros beyond the end of the disk."""
        return self._read(place * self._cluster + inside, length).ljust(length, b"\0")

    @property
    def cluster(self) -> int:
        """Bytes of a cluster."""
        return self._cluster

    def _read(self, offset: int, length: int) -> bytes:
        return self._blocks.read(self._start + offset, length)

    def _load(self, number: int) -> list[_Attribute]:
        """All attributes of a file, those in further records too."""
        return self._whole(self._attributes(self._table.read(number * self._record, self._record), number), number)

    def _whole(self, attributes: list[_Attribute], number: int) -> list[_Attribute]:
        """The same with what lies in other records, where a list says so."""
        listed = _joined(attributes, _ATTRIBUTES, "")
        if listed is None:
            return attributes
        content = NtfsFile(self, listed).read(0, _MOST_LIST)
        found = list(attributes)
        for other in _others(content, number):
            found += self._attributes(self._table.read(other * self._record, self._record), other)
        return found

    def _attributes(self, record: bytes, number: int) -> list[_Attribute]:
        record = _mended(record, b"FILE")
        flags, at = struct.unpack_from("<H", record, 22)[0], struct.unpack_from("<H", record, 20)[0]
        if not flags & _IN_USE:
            raise Unreadable(f"record {number} of its table of files is not in use")
        found = list[_Attribute]()
        while at + 24 <= len(record):
            kind, length = struct.unpack_from("<II", record, at)
            if kind == 0xFFFFFFFF:
                return found
            if length < 24 or at + length > len(record):
                break
            found.append(_attribute(record[at : at + length]))
            at += length
        raise Unreadable(f"record {number} of its table of files is damaged")

    def _find(self, folder: int, name: str) -> int | None:
        """The number of the record of a name in a folder: down the tree of its index."""
        attributes = self._load(folder)
        root = _joined(attributes, _INDEX_ROOT, "$I30")
        if root is None or root.content is None or len(root.content) < 32:
            return None
        blocks = _joined(attributes, _INDEX_BLOCKS, "$I30")
        size = struct.unpack_from("<I", root.content, 8)[0]
        node, wanted = root.content[16:], _folded(name)
        for _ in range(_DEEPEST):
            number, child = _among(node, wanted)
            if number is not None or child is None:
                return number
            if blocks is None or not 512 <= size <= 1 << 16:
                break
            unit = self._cluster if size >= self._cluster else 512
            node = _mended(NtfsFile(self, blocks).read(child * unit, size), b"INDX")[24:]
        raise Unreadable(f"the index of a folder is damaged where {name} should be")


class NtfsFile:
    """A file of a volume: ``size`` bytes, readable anywhere."""

    def __init__(self, volume: NtfsVolume, data: _Attribute) -> None:
        if data.flags & (_PACKED | _ENCRYPTED):
            raise Unreadable("a file is packed or encrypted")
        self._volume, self._data = volume, data
        self.size: int = len(data.content) if data.content is not None else data.size

    def read(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from ``offset``; shorter at the end."""
        data = self._data
        length = max(0, min(length, self.size - offset))
        if data.content is not None:
            return data.content[offset : offset + length]
        pieces, cluster = [], self._volume.cluster
        end = min(offset + length, max(offset, data.valid))
        for run in data.runs:
            first, last = run.inside * cluster, (run.inside + run.count) * cluster
            if offset >= end or last <= offset:
                continue
            if first > offset:
                raise Unreadable("a piece of a file is missing")
            count = min(last, end) - offset
            pieces.append(bytes(count) if run.place < 0 else self._volume.read_clusters(run.place, offset - first, count))
            offset += count
        return b"".join(pieces).ljust(length, b"\0")


def _sized(stored: int, cluster: int) -> int:
    """The size of a record: in clusters, or as a negative power of two."""
    size = stored * cluster if stored < 0x80 else 1 << (256 - stored & 31)
    if not 512 <= size <= 1 << 16:
        raise Unreadable("its boot sector has no size of a record")
    return size


def _mended(block: bytes, magic: bytes) -> bytes:
    """A record with the last two bytes of each sector put back, which are kept at its beginning. Raises Unreadable."""
    if block[:4] != magic or len(block) < 512:
        raise Unreadable(f"a record of it does not begin with {magic.decode()}")
    at, count = struct.unpack_from("<HH", block, 4)
    if not 1 < count <= 1 + len(block) // 512 or at + 2 * count > 512:
        raise Unreadable("a record of it is damaged")
    whole, mark = bytearray(block), block[at : at + 2]
    for number in range(1, count):
        end = number * 512
        if block[end - 2 : end] != mark:
            raise Unreadable("a record of it was written in part")
        whole[end - 2 : end] = block[at + 2 * number : at + 2 * number + 2]
    return bytes(whole)


def _attribute(data: bytes) -> _Attribute:
    kind, _, outside, name_length, name_at, flags = struct.unpack_from("<IIBBHH", data)
    name = data[name_at : name_at + 2 * name_length].decode("utf-16-le", "replace")
    if not outside:
        length, at = struct.unpack_from("<IH", data, 16)
        return _Attribute(kind, name, flags, data[at : at + length])
    if len(data) < 64:
        raise Unreadable("an attribute of a file is damaged")
    first, _, runs_at = struct.unpack_from("<QQH", data, 16)
    size, valid = struct.unpack_from("<QQ", data, 48)
    return _Attribute(kind, name, flags, None, tuple(_runs(data[runs_at:], first)), size, valid)


def _runs(data: bytes, inside: int) -> Iterator[_Run]:
    """Where the clusters lie: lengths and differences of places, each as short as it can be."""
    at = place = 0
    while at < len(data) and data[at]:
        long, far = data[at] & 15, data[at] >> 4
        count = int.from_bytes(data[at + 1 : at + 1 + long], "little")
        step = int.from_bytes(data[at + 1 + long : at + 1 + long + far], "little", signed=True)
        if not 0 < long <= 8 or far > 8 or not count or inside + count > 1 << 48:
            raise Unreadable("the places of a file are damaged")
        place += step
        if far and not 0 <= place < 1 << 48:
            raise Unreadable("a file lies outside of the volume")
        yield _Run(inside, place if far else -1, count)
        inside += count
        at += 1 + long + far


def _joined(attributes: Sequence[_Attribute], kind: int, name: str) -> _Attribute | None:
    """The attribute of a kind, put together from its extents; the first one has its size."""
    found = [one for one in attributes if one.kind == kind and one.name == name]
    if not found or found[0].content is not None:
        return found[0] if found else None
    first = next((one for one in found if not one.runs or one.runs[0].inside == 0), found[0])
    runs = sorted((run for one in found for run in one.runs), key=lambda run: run.inside)
    if len(runs) > _MOST_RUNS:
        raise Unreadable(f"a file lies in more than {_MOST_RUNS} pieces")
    return _Attribute(kind, name, first.flags, None, tuple(runs), first.size, first.valid)


def _others(content: bytes, number: int) -> list[int]:
    """The records that a list of attributes names, besides the one it is in."""
    found: dict[int, None] = {}
    at = 0
    while at + 26 <= len(content):
        length = struct.unpack_from("<H", content, at + 4)[0]
        if length < 26:
            break
        found[struct.unpack_from("<Q", content, at + 16)[0] & _NUMBER] = None
        at += length
    found.pop(number, None)
    if len(found) > _MOST_EXTENTS:
        raise Unreadable(f"a file's attributes lie in more than {_MOST_EXTENTS} records")
    return list(found)


def _among(node: bytes, wanted: list[int]) -> tuple[int | None, int | None]:
    """The record of a name among the entries of a node; else the block its place in the order leads to."""
    if len(node) < 16:
        return None, None
    at, length = struct.unpack_from("<II", node)
    end = min(length, len(node))
    while at + 16 <= end:
        reference, size, key, flags = struct.unpack_from("<QHHH", node, at)
        if size < 16 or at + size > end:
            raise Unreadable("the index of a folder is damaged")
        child = struct.unpack_from("<Q", node, at + size - 8)[0] if flags & _CHILD and size >= 24 else None
        if flags & _LAST:
            return None, child
        name = _folded(_name_of(node[at + 16 : at + 16 + key]))
        if name == wanted:
            return reference & _NUMBER, None
        if name > wanted:
            return None, child
        at += size
    return None, None


def _name_of(key: bytes) -> str:
    return key[66 : 66 + 2 * key[64]].decode("utf-16-le", "surrogatepass") if len(key) > 66 else ""


def _folded(name: str) -> list[int]:
    """A name as folders are sorted by: its code units, upper case where that is one again."""
    upper = "".join(big if len(big := one.upper()) == 1 else one for one in name)
    data = upper.encode("utf-16-le", "surrogatepass")
    return list(struct.unpack(f"<{len(data) // 2}H", data))
