"""The qcow2 file format: reading a header without trusting it, and writing a fresh overlay without starting a program.

Source: QEMU docs/interop/qcow2.rst. All integers in the format are big-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from tinamou.late import dataclass
from tinamou.system.closing import Closing, IfFailed
from tinamou.units import Size

__all__ = [
    "MAGIC",
    "Header",
    "Qcow2Error",
    "encode_overlay",
    "first_cluster",
    "parse_header",
    "put_on",
    "read_header",
    "write_overlay",
]

MAGIC = b"QFI\xfb"
CLUSTER = 65536
MAX_L1_BYTES = 32 << 20
MAX_NAME = 1023


_FIXED = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_V3_END = 104
_END, _BACKING_FORMAT, _DATA_FILE, _CRYPTO = 0, 0xE2792ACA, 0x44415441, 0x0537BE77
_INCOMPATIBLE = {0: "dirty", 1: "corrupt", 2: "external data file", 3: "compression type", 4: "extended L2"}


class Qcow2Error(ValueError):
    """The bytes are not a qcow2 header that QEMU would accept; the message says which field and why."""


@dataclass(frozen=True)
class Header:
    """What a qcow2 header says. ``size`` is the virtual size; ``l1_size`` counts entries, offsets are bytes in the file.

    ``encryption`` is empty, ``aes`` or ``luks``; ``data_file`` is None without an external data file, and may be empty when
    there is one whose name is not recorded; ``compression`` is ``zlib`` or ``zstd``. ``crypto`` is where the LUKS header of
    an encrypted file lies and how long it is, both 0 without one.
    """

    version: int
    size: Size
    cluster_bits: int
    l1_size: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    backing_file: str = ""
    backing_format: str = ""
    encryption: str = ""
    data_file: str | None = None
    incompatible: int = 0
    compatible: int = 0
    autoclear: int = 0
    refcount_bits: int = 16
    compression: str = "zlib"
    crypto: tuple[int, int] = (0, 0)

    @property
    def dirty(self) -> bool:
        """Reference counts are not up to date; QEMU repairs them when it opens the image for writing."""
        return bool(self.incompatible & 1)

    @property
    def corrupt(self) -> bool:
        """QEMU met a damaged structure and marked the image; it opens it read-only at most."""
        return bool(self.incompatible & 2)

    @property
    def extended_l2(self) -> bool:
        """L2 entries are 128 bits wide, with a bit for each subcluster."""
        return bool(self.incompatible & 16)

    @property
    def cluster_size(self) -> int:
        """Bytes of one cluster."""
        return 1 << self.cluster_bits


def parse_header(data: bytes) -> Header:
    """Parse the first cluster of a file (at least the header, its extensions and the backing file's name).

    Raises Qcow2Error for everything QEMU's own open would refuse, and for offsets that point outside ``data`` or overflow.
    """
    _need(len(data) >= _FIXED.size, "the file is shorter than a qcow2 header")
    (
        magic,
        version,
        backing_at,
        backing_len,
        cluster_bits,
        size,
        crypt,
        l1_size,
        l1_at,
        ref_at,
        ref_clusters,
        snaps,
        _,
    ) = _FIXED.unpack_from(data)
    _need(magic == MAGIC, "the magic number is not that of qcow2")
    _need(version in (2, 3), f"version {version} of qcow2 does not exist")
    _need(9 <= cluster_bits <= 21, f"cluster_bits is {cluster_bits}, allowed are 9 to 21")
    _need(crypt <= 2, f"encryption method {crypt} does not exist")
    _need(size < 1 << 63, "the virtual size is out of range")
    incompatible, compatible, autoclear, refcount_bits, header_length, compression = _version3(data, version, cluster_bits)
    limit = min(1 << cluster_bits, len(data))
    extensions = dict(_extensions(data, header_length, backing_at or limit, limit))
    data_file = extensions.get(_DATA_FILE, b"") if incompatible & 4 else None
    header = Header(
        version=version,
        size=Size(size),
        cluster_bits=cluster_bits,
        l1_size=l1_size,
        l1_offset=l1_at,
        refcount_offset=ref_at,
        refcount_clusters=ref_clusters,
        snapshots=snaps,
        backing_file=_backing_name(data, backing_at, backing_len, limit),
        backing_format=_text(extensions.get(_BACKING_FORMAT, b""), "backing format"),
        encryption=("", "aes", "luks")[crypt],
        data_file=None if data_file is None else _text(data_file, "name of the external data file"),
        incompatible=incompatible,
        compatible=compatible,
        autoclear=autoclear,
        refcount_bits=refcount_bits,
        compression=compression,
        crypto=_crypto(extensions.get(_CRYPTO, b"")),
    )
    return _check_tables(header)


def read_header(path: str | Path) -> Header:
    """Read and parse the header of a file. Raises Qcow2Error, OSError."""
    with Path(path).open("rb", buffering=0) as file:
        return parse_header(first_cluster(file.fileno()))


def first_cluster(descriptor: int) -> bytes:
    """What `parse_header` has to be given of an open file. Raises OSError."""
    data = os.pread(descriptor, CLUSTER, 0)
    bits = struct.unpack_from(">I", data, 20)[0] if len(data) >= 24 else 0
    return os.pread(descriptor, 1 << bits, 0) if 16 < bits <= 21 and data[:4] == MAGIC else data


def put_on(data: bytes, backing: str, backing_format: str) -> bytes:
    """The first cluster of a file with another backing file named in it; features, tables and other extensions stay.

    What ``qemu-img rebase -u`` writes, without opening the file. Raises Qcow2Error for a header that `parse_header` refuses,
    a file whose data are encrypted or elsewhere, and a name for which there is no room.
    """
    header = parse_header(data)
    _need(not header.encryption and header.data_file is None, "its data are encrypted, or in another file")
    _need(len(data) >= header.cluster_size, "the file is shorter than a cluster")
    length = _FIXED.size if header.version == 2 else _V3.unpack_from(data, _FIXED.size)[4]
    name, kind = os.fsencode(backing), backing_format.encode()
    _need(0 < len(name) <= MAX_NAME, f"a backing file's name of {len(name)} bytes is not possible")
    old = struct.unpack_from(">Q", data, 8)[0] or header.cluster_size
    kept = [(what, body) for what, body in _extensions(data, length, old, header.cluster_size) if what != _BACKING_FORMAT]
    extensions = b"".join(_extension(what, body) for what, body in [(_BACKING_FORMAT, kind), *kept, (_END, b"")])
    at = length + len(extensions)
    _need(at + len(name) <= header.cluster_size, "there is no room for the backing file's name in its header")
    head = data[:8] + struct.pack(">QI", at, len(name)) + data[20:length]
    return (head + extensions + name).ljust(header.cluster_size, b"\0")


def _extension(kind: int, body: bytes) -> bytes:
    return struct.pack(">II", kind, len(body)) + body.ljust(-(-len(body) // 8) * 8, b"\0")


def encode_overlay(size: int, backing: str = "", backing_format: str = "", crypto: bytes = b"") -> list[tuple[int, bytes]]:
    """The non-zero pieces of an empty version 3 image as ``(offset, bytes)``; the last one ends the file.

    Layout: header, refcount table, one refcount block, L1 table, each on its own 64 KiB cluster. One refcount block covers
    2 GiB of file, so it always covers the metadata. ``crypto`` is the LUKS header of the file below, byte for byte: the same
    passphrase opens both, and what is written is encrypted with the same key; it comes last. The size is rounded up to whole
    sectors, as qemu-img does. Raises ValueError for a size above 2 PiB or a name above 1023 bytes.
    """
    size = Size(size).whole
    l1_size = max(1, -(-size // (CLUSTER * CLUSTER // 8)))
    l1_clusters = -(-l1_size * 8 // CLUSTER)
    if size < 0 or l1_size * 8 > MAX_L1_BYTES:
        raise ValueError(f"qcow2 with clusters of 64 KiB holds 0 to {Size(MAX_L1_BYTES // 8 * CLUSTER * CLUSTER // 8)}")
    name = os.fsencode(backing)
    if len(name) > MAX_NAME:
        raise ValueError(f"the backing file's path has {len(name)} bytes; qcow2 has room for {MAX_NAME}")
    extensions = b""
    if name and backing_format:
        kind = backing_format.encode()
        extensions += struct.pack(">II", _BACKING_FORMAT, len(kind)) + kind.ljust(-(-len(kind) // 8) * 8, b"\0")
    used = 3 + l1_clusters
    if crypto:
        extensions += struct.pack(">IIQQ", _CRYPTO, 16, used * CLUSTER, len(crypto))
    extensions += struct.pack(">II", _END, 0)
    header_length = _V3_END + 8
    name_at = header_length + len(extensions) if name else 0
    header = _FIXED.pack(MAGIC, 3, name_at, len(name), 16, size, 2 * bool(crypto), l1_size, 3 * CLUSTER, CLUSTER, 1, 0, 0)
    header += _V3.pack(0, 0, 0, 4, header_length) + bytes(8) + extensions + name
    end = used + -(-len(crypto) // CLUSTER)
    keys = [(used * CLUSTER + at, piece) for at, piece in _pieces(crypto)]
    tables = [(CLUSTER, struct.pack(">Q", 2 * CLUSTER)), (2 * CLUSTER, struct.pack(">H", 1) * end)]
    return [(0, header), *tables, *keys, (end * CLUSTER, b"")]


def _pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The pages of ``data`` that are not all zero, with their places."""
    for at in range(0, len(data), 4096):
        if any(piece := data[at : at + 4096]):
            yield at, piece


def write_overlay(
    path: str | Path, size: int, backing: str = "", backing_format: str = "", *, mode: int = 0o600, crypto: bytes = b""
) -> None:
    """Create an empty qcow2 file of ``size`` virtual bytes over ``backing`` (recorded in the header, not opened).

    ``crypto`` is as for `encode_overlay`. Raises FileExistsError when ``path`` exists, ValueError when the size or the name
    does not fit, OSError; after an error no file is left.
    """
    if backing and not backing_format:
        raise ValueError("a backing file needs its format: guessing it lets the guest choose what is opened")
    pieces = encode_overlay(size, backing, backing_format, crypto)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with Closing(descriptor), IfFailed(Path(path).unlink, missing_ok=True):
        os.ftruncate(descriptor, pieces[-1][0])
        for offset, data in pieces[:-1]:
            os.pwrite(descriptor, data, offset)


def _need(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Qcow2Error(otherwise)


def _version3(data: bytes, version: int, cluster_bits: int) -> tuple[int, int, int, int, int, str]:
    """Feature bits, refcount width in bits, header length, compression; version 2 has the defaults."""
    if version == 2:
        return 0, 0, 0, 16, _FIXED.size, "zlib"
    _need(len(data) >= _V3_END, "the file is shorter than a qcow2 header")
    incompatible, compatible, autoclear, refcount_order, length = _V3.unpack_from(data, _FIXED.size)
    _need(refcount_order <= 6, f"refcount_order is {refcount_order}, at most 6 is allowed")
    _need(_V3_END <= length <= min(1 << cluster_bits, len(data)), f"the header claims a length of {length} bytes")
    unknown = [bit for bit in range(64) if incompatible >> bit & 1 and bit not in _INCOMPATIBLE]
    _need(not unknown, f"incompatible feature bits {unknown} are unknown")
    kind = data[_V3_END] if length > _V3_END else 0
    _need(kind <= 1, f"compression type {kind} does not exist")
    _need(bool(incompatible & 8) == bool(kind), "the compression type does not match its feature bit")
    return incompatible, compatible, autoclear, 1 << refcount_order, length, ("zlib", "zstd")[kind]


def _extensions(data: bytes, start: int, end: int, limit: int) -> Iterator[tuple[int, bytes]]:
    """The header extensions between the header and the backing file's name."""
    at, stop = start, min(end, limit)
    while at + 8 <= stop:
        kind, length = struct.unpack_from(">II", data, at)
        if kind == _END:
            return
        _need(at + 8 + length <= stop, f"header extension {kind:#x} runs out of the header")
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + -(-length // 8) * 8


def _crypto(data: bytes) -> tuple[int, int]:
    """Where the LUKS header is: one of any reasonable length, on a cluster."""
    if not data:
        return 0, 0
    _need(len(data) == 16, "the pointer to the encryption header has the wrong length")
    offset, length = struct.unpack(">QQ", data)
    _need(offset % 512 == 0 and offset < 1 << 56 and 0 < length <= 64 << 20, "the encryption header lies nowhere")
    return offset, length


def _check_tables(header: Header) -> Header:
    """Whether the table fields are possible at all; whether they lie in the file is for whoever knows its length."""
    cluster = header.cluster_size
    l1, refs = header.l1_offset, header.refcount_offset
    _need(header.l1_size * 8 <= MAX_L1_BYTES, f"an L1 table of {header.l1_size} entries is more than qcow2 allows")
    per_entry = cluster * (cluster // (16 if header.extended_l2 else 8))
    enough = header.l1_size >= -(-int(header.size) // per_entry)
    _need(enough, f"an L1 table of {header.l1_size} entries is too small for {int(header.size)} bytes")
    _need(l1 % cluster == 0 and l1 < 1 << 56, f"the L1 table's offset {l1:#x} is not on a cluster")
    _need(refs % cluster == 0 and 0 < refs < 1 << 56, f"the refcount table's offset {refs:#x} is not on a cluster")
    clusters = header.refcount_clusters
    _need(0 < clusters * cluster <= 8 << 20, f"a refcount table of {clusters} clusters is not possible")
    _need(header.snapshots <= 65536, f"{header.snapshots} internal snapshots are more than qcow2 allows")
    return header


def _backing_name(data: bytes, at: int, length: int, limit: int) -> str:
    if not at:
        return ""
    _need(length <= MAX_NAME, f"the backing file's name claims {length} bytes")
    _need(at + length <= limit, "the backing file's name lies outside the header")
    return _text(data[at : at + length], "backing file's name")


def _text(raw: bytes, what: str) -> str:
    _need(b"\0" not in raw, f"the {what} contains a zero byte")
    return os.fsdecode(raw)
