"""Disks with a Windows on them, as far as volume and registry go: made by code alone, or by NTFS' and hivex' own tools."""

from __future__ import annotations

import contextlib
import struct
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

CLUSTER, RECORD, _TABLE = 4096, 1024, 4
FIRST = 1 << 20
"""Where the volume begins on a disk, as Windows lays it out."""

Tree = dict[str, object]
"""A key: the keys below it as dictionaries; its values as ``(type, bytes)``."""


def text(content: str, kind: int = 1) -> tuple[int, bytes]:
    """A value that is a text: REG_SZ, or REG_EXPAND_SZ with 2."""
    return kind, content.encode("utf-16-le") + b"\0\0"


def number(content: int) -> tuple[int, bytes]:
    """A value that is a number."""
    return 4, struct.pack("<I", content)


# ── registry ──


def system(*, database: bool = True, arch: str = "AMD64", current: int = 1, services: tuple[str, ...] = ()) -> Tree:
    """The hive SYSTEM of a Windows that was never on virtio, but for ``services``."""
    there: Tree = {"disk": {"Start": number(0)}, "Tcpip": {"Parameters": {"Hostname": text("windows.invalid")}}}
    there |= {name: {"Start": number(0)} for name in services}
    control = {"Session Manager": {"Environment": {"PROCESSOR_ARCHITECTURE": text(arch)}}}
    return {
        "Select": {"Current": number(current), "Default": number(current)},
        f"ControlSet{current:03d}": {"Control": control, "Services": there},
        **({"DriverDatabase": {"DeviceIds": {"PCI": {}}}} if database else {}),
    }


def software(
    product: str = "Windows 10 Pro",
    build: int = 19045,
    *,
    version: tuple[int, int] = (10, 0),
    server: bool = False,
    path: str = "%SystemRoot%\\inf",
) -> Tree:
    """The hive SOFTWARE of a release."""
    here: Tree = {
        "ProductName": text(product),
        "CurrentBuildNumber": text(str(build)),
        "InstallationType": text("Server" if server else "Client"),
        "CurrentVersion": text("6.3" if version[0] == 10 else f"{version[0]}.{version[1]}"),
        "SystemRoot": text("C:\\Windows"),
    }
    if version[0] == 10:
        here |= {"CurrentMajorVersionNumber": number(version[0]), "CurrentMinorVersionNumber": number(version[1])}
    return {
        "Microsoft": {
            "Windows": {"CurrentVersion": {"DevicePath": text(path, 2)}},
            "Windows NT": {"CurrentVersion": here},
        }
    }


class _Cells:
    """The cells of a hive, each where the one before ends."""

    def __init__(self) -> None:
        self.data = bytearray(32)
        self.security = 0

    def secure(self) -> None:
        """Who may use the keys, once; behind the topmost key, which regipy takes the first cell for."""
        if not self.security:
            nobody = struct.pack("<BBHIIII", 1, 0, 0x8000, 0, 0, 0, 0)
            self.security = self.add(b"sk\0\0" + bytes(8) + struct.pack("<II", 1, len(nobody)) + nobody)
            struct.pack_into("<II", self.data, self.security + 8, self.security, self.security)

    def add(self, content: bytes) -> int:
        at = len(self.data)
        self.data += (struct.pack("<i", -(len(content) + 4 + 7 & ~7)) + content).ljust(len(content) + 4 + 7 & ~7, b"\0")
        return at


def hive(tree: Tree, *, clean: bool = True) -> bytes:
    """A hive with these keys."""
    cells = _Cells()
    root = _key(cells, "$$$PROTO.HIV", tree, 0xFFFFFFFF, 0x2C)
    length = -(-len(cells.data) // 4096) * 4096
    if left := length - len(cells.data):
        cells.data += struct.pack("<i", left) + bytes(left - 4)
    struct.pack_into("<4sIIIIQI", cells.data, 0, b"hbin", 0, length, 0, 0, 0, 0)
    base = bytearray(4096)
    struct.pack_into("<4sIIQIIIIIII", base, 0, b"regf", 2, 2 if clean else 1, 0, 1, 3, 0, 1, root, length, 1)
    total = 0
    for word in struct.unpack_from("<127I", base):
        total ^= word
    struct.pack_into("<I", base, 508, {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(total, total))
    return bytes(base + cells.data)


def _key(cells: _Cells, name: str, tree: Tree, parent: int, flags: int = 0x20) -> int:
    below = {one: inner for one, inner in tree.items() if isinstance(inner, dict)}
    values = {one: inner for one, inner in tree.items() if isinstance(inner, tuple)}
    here = cells.add(bytes(76) + name.encode("latin-1"))
    cells.secure()
    listed = cells.add(b"".join(struct.pack("<I", _value(cells, *one)) for one in values.items())) if values else 0xFFFFFFFF
    keys = 0xFFFFFFFF
    if below:
        offsets = {one: _key(cells, one, inner, here) for one, inner in sorted(below.items(), key=_upper)}
        entries = b"".join(struct.pack("<II", offset, _hash(one)) for one, offset in offsets.items())
        keys = cells.add(b"lh" + struct.pack("<H", len(offsets)) + entries)
    head = struct.pack("<2sHQII", b"nk", flags, 0, 0, parent) + struct.pack("<IIII", len(below), 0, keys, 0xFFFFFFFF)
    head += struct.pack("<III", len(values), listed, cells.security) + struct.pack("<I", 0xFFFFFFFF) + bytes(20)
    cells.data[here + 4 : here + 80] = head + struct.pack("<HH", len(name), 0)
    return here


def _upper(item: tuple[str, object]) -> str:
    return item[0].upper()


def _value(cells: _Cells, name: str, value: tuple[int, bytes]) -> int:
    kind, data = value
    place, length = (int.from_bytes(data, "little"), len(data) | 1 << 31) if len(data) <= 4 else (cells.add(data), len(data))
    return cells.add(struct.pack("<2sHIIIHH", b"vk", len(name), length, place, kind, 1, 0) + name.encode("latin-1"))


def _hash(name: str) -> int:
    total = 0
    for one in name.upper():
        total = (total * 37 + ord(one)) & 0xFFFFFFFF
    return total


# ── volume ──


def windows_files(system_hive: bytes, software_hive: bytes, **more: bytes) -> dict[str, bytes]:
    """The files that tell a Windows."""
    config = "Windows/System32/config"
    return {
        f"{config}/SYSTEM": system_hive,
        f"{config}/SOFTWARE": software_hive,
        "Windows/System32/drivers/disk.sys": b"MZ",
        **{name.replace("_", "."): content for name, content in more.items()},
    }


def ntfs(files: Mapping[str, bytes], *, dirty: bool = False) -> bytes:
    """A volume with these files, made by code: every folder's index in its record, or in one block where it is longer."""
    return _Volume(files, dirty).made()


def folders_of(files: Mapping[str, bytes]) -> dict[str, int]:
    """The folders of these files, and the numbers of their records; those of the files follow."""
    folders = {"": 5}
    for name in sorted(files):
        for depth in range(1, len(parts := name.split("/"))):
            folders.setdefault("/".join(parts[:depth]), 24 + len(folders))
    return folders


class _Volume:
    def __init__(self, files: Mapping[str, bytes], dirty: bool) -> None:
        folders = folders_of(files)
        numbers = {name: 24 + len(folders) + 1 + place for place, name in enumerate(sorted(files))}
        self.records_in_all = max([24, *folders.values(), *numbers.values()]) + 1
        self.records: dict[int, list[bytes]] = {3: [_resident(0x70, bytes(8) + struct.pack("<BBH", 3, 1, int(dirty)))]}
        self.data, self.next = dict[int, bytes](), _TABLE - -self.records_in_all * RECORD // CLUSTER + 1
        for name, one in numbers.items():
            self.records[one] = [self._content(0x80, "", files[name])]
        both = {**folders, **numbers}
        for name, one in folders.items():
            inside = [(path, at) for path, at in both.items() if path and path.rpartition("/")[0] == name]
            self.records[one] = self._index(one, inside)

    def _content(self, kind: int, name: str, content: bytes) -> bytes:
        """Apart from the record, in two pieces with a gap between them where it is longer than a cluster."""
        if len(content) < 200:
            return _resident(kind, content)
        pieces = [content] if len(content) <= CLUSTER else [content[:CLUSTER], content[CLUSTER:]]
        runs, before = b"", 0
        for piece in pieces:
            count = -(-len(piece) // CLUSTER)
            self.data[self.next] = piece
            runs += struct.pack("<BIi", 0x44, count, self.next - before)
            before, self.next = self.next, self.next + count + 1
        return _outside(kind, name, runs, len(content))

    def _index(self, here: int, inside: list[tuple[str, int]]) -> list[bytes]:
        entries = b""
        for path, number in sorted(inside, key=lambda one: one[0].upper()):
            entries += _entry(path.rpartition("/")[2], number, here)
        small = len(entries) < 400
        last = struct.pack("<QHHI", 0, 16 if small else 24, 0, 2 if small else 3) + (b"" if small else bytes(8))
        listed = (entries if small else b"") + last
        node = struct.pack("<IIIBxxx", 16, 16 + len(listed), 16 + len(listed), 0 if small else 1) + listed
        found = [_resident(0x90, struct.pack("<IIIBxxx", 0x30, 1, CLUSTER, 1) + node, "$I30")]
        if not small:
            inner = entries + struct.pack("<QHHI", 0, 16, 0, 2)
            head = struct.pack("<4sHHQQ", b"INDX", 40, 9, 0, 0) + struct.pack(
                "<IIIBxxx", 40, 40 + len(inner), CLUSTER - 24, 0
            )
            found.append(self._content(0xA0, "$I30", _guarded((head + bytes(24) + inner).ljust(CLUSTER, b"\0"), 40)))
        return found

    def made(self) -> bytes:
        first, most = _TABLE, self.records_in_all
        table = -(-most * RECORD // CLUSTER)
        self.records[0] = [_outside(0x80, "", struct.pack("<BBB", 0x11, table, first), most * RECORD)]
        size = (self.next + 1) * CLUSTER
        volume = bytearray(size)
        struct.pack_into("<3s8sHB", volume, 0, b"\xeb\x52\x90", b"NTFS    ", 512, CLUSTER // 512)
        struct.pack_into("<QQQ", volume, 40, size // 512 - 1, first, first)
        struct.pack_into("<b3xb", volume, 64, -10, 1)
        volume[510:512] = b"\x55\xaa"
        for number, attributes in self.records.items():
            at = first * CLUSTER + number * RECORD
            volume[at : at + RECORD] = _record(attributes, folder=any(one[:4] == b"\x90\0\0\0" for one in attributes))
        for place, content in self.data.items():
            volume[place * CLUSTER : place * CLUSTER + len(content)] = content
        return bytes(volume)


def _padded(data: bytes) -> bytes:
    return data.ljust(len(data) + 7 & ~7, b"\0")


def _resident(kind: int, content: bytes, name: str = "") -> bytes:
    named = _padded(name.encode("utf-16-le"))
    body = struct.pack("<IHH", len(content), 24 + len(named), 0) + named + content
    length = len(_padded(body)) + 16
    return _padded(struct.pack("<IIBBHHH", kind, length, 0, len(name), 24, 0, 0) + body)


def _outside(kind: int, name: str, runs: bytes, size: int) -> bytes:
    named = _padded(name.encode("utf-16-le"))
    count = -(-size // CLUSTER)
    body = struct.pack("<QQHHI", 0, count - 1, 64 + len(named), 0, 0) + struct.pack("<QQQ", count * CLUSTER, size, size)
    body = _padded(body + named + runs + b"\0")
    return struct.pack("<IIBBHHH", kind, len(body) + 16, 1, len(name), 64, 0, 0) + body


def _entry(name: str, number: int, parent: int) -> bytes:
    key = struct.pack("<Q", parent | 1 << 48) + bytes(56) + struct.pack("<BB", len(name), 1) + name.encode("utf-16-le")
    size = len(_padded(bytes(16) + key))
    return _padded(struct.pack("<QHHI", number | 1 << 48, size, len(key), 0) + key)


def _record(attributes: list[bytes], *, folder: bool) -> bytes:
    body = b"".join(attributes) + struct.pack("<II", 0xFFFFFFFF, 0)
    head = struct.pack("<4sHHQHHHHII", b"FILE", 48, 3, 0, 1, 1, 56, 3 if folder else 1, 56 + len(body), RECORD)
    whole = (head.ljust(56, b"\0") + body).ljust(RECORD, b"\0")
    assert len(whole) == RECORD, len(whole)
    return _guarded(whole, 48)


def _guarded(block: bytes, at: int) -> bytes:
    """With the end of each sector kept at ``at``, and a mark in its place."""
    whole, count = bytearray(block), len(block) // 512
    kept = b"".join(block[end - 2 : end] for end in range(512, len(block) + 1, 512))
    whole[at : at + 2 + 2 * count] = b"\x07\0" + kept
    for end in range(512, len(block) + 1, 512):
        whole[end - 2 : end] = b"\x07\0"
    return bytes(whole)


def disk(volume: bytes, first: int = FIRST) -> bytes:
    """A disk with a table of partitions and the volume in the first one."""
    entry = struct.pack("<B3sB3sII", 0x80, bytes(3), 7, bytes(3), first // 512, len(volume) // 512)
    return (b"\x33\xc0".ljust(446, b"\0") + entry.ljust(64, b"\0") + b"\x55\xaa").ljust(first, b"\0") + volume


# ── by the tools ──


@contextlib.contextmanager
def mounted(volume: Path, folder: Path) -> Iterator[Path]:
    """A volume in a file, mounted with ntfs-3g: as root, where there is /dev/fuse."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["ntfs-3g", str(volume), str(folder)], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def real_volume(path: Path, files: Mapping[str, bytes], size: int = 64 << 20) -> Path:
    """A volume made by mkntfs, its files written by ntfs-3g."""
    with path.open("wb") as file:
        file.truncate(size)
    words = ["mkntfs", "-q", "-F", "-Q", "-H", "255", "-S", "63", "-p", "2048", "-s", "512", str(path)]
    subprocess.run(words, check=True, capture_output=True)
    with mounted(path, path.with_name("mounted")) as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return path


def merged(path: Path, tree: Tree) -> bytes:
    """A hive that hivexregedit filled with these keys, beginning with an empty one."""
    path.write_bytes(hive({}))
    lines = ["Windows Registry Editor Version 5.00", ""]
    for name, values in _flat(tree, "HKLM"):
        lines += [f"[{name}]", *(f'"{one}"={_written(value)}' for one, value in values.items()), ""]
    words = ["hivexregedit", "--merge", "--prefix", "HKLM", str(path)]
    subprocess.run(words, input="\n".join(lines).encode(), check=True, capture_output=True)
    return path.read_bytes()


def _flat(tree: Tree, name: str) -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    yield name, {one: inner for one, inner in tree.items() if isinstance(inner, tuple)}
    for one, inner in tree.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{name}\\{one}")


def _written(value: tuple[int, bytes]) -> str:
    return f"hex({value[0]:x}):{','.join(f'{one:02x}' for one in value[1])}"
