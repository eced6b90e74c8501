"""Volumes and registries of a Windows, for the readers that look for one on a disk; logs of the disks of its hypervisor."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from fuzz_folder import written
from fuzzing import target

from tinamou.errors import ImageError
from tinamou.images import vhdx_log
from tinamou.images.blocks import RawBlocks
from tinamou.images.hive import Hive, HiveError
from tinamou.images.windows_inside import search

sys.path.append(str(Path(__file__).parent.parent))
import made_vhdx_logs as logs
import made_windows as made


def hives() -> Iterator[bytes]:
    """With a database of drivers, and without; with more keys than one cell holds the names of."""
    yield made.hive(made.system(services=("viostor",)))
    yield made.hive(made.software())
    yield made.hive({f"Key{number}": {"V": made.number(number)} for number in range(80)})


def disks() -> Iterator[bytes]:
    """A disk with a Windows, and a volume alone with a folder in blocks of its own; small, so that damage hits something."""
    files = made.windows_files(made.hive(made.system()), made.hive(made.software()))
    yield made.ntfs(files)
    yield made.ntfs({**files, **{f"pad{number}.txt": b"x" for number in range(30)}})


def mended(data: bytes) -> bytes:
    """With the checksum that its first block should have."""
    if len(data) < 512:
        return data
    total = 0
    for word in struct.unpack_from("<127I", data):
        total ^= word
    return data[:508] + struct.pack("<I", {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(total, total)) + data[512:]


@target("registry hive", seeds=hives, errors=[HiveError], mended=mended)
def hive(data: bytes) -> object:
    whole = Hive(RawBlocks(str(written(data, "hive"))))
    found = whole.find("Microsoft", "Windows NT", "CurrentVersion") or whole.find("ControlSet001", "Services", "viostor")
    return f"{whole.clean} {len(list(whole.root().children()))} {sorted(found.values()) if found else ''}"


@target("windows volume", seeds=disks)
def volume(data: bytes) -> object:
    found, kept = search(RawBlocks(str(written(data, "volume"))))
    assert "\n" not in kept
    return f"{found.name} {found.build} {bool(found.unfit)}" if found else kept[:20]


_LOG_AT, _SECTOR = 0x30000, 4096


def rings() -> Iterator[bytes]:
    """Logs: of two entries, and of one that goes on at the ring's beginning."""
    word = b"word" * 1024
    both = logs.entry(41, 0, _LOG_AT, [(0, word), (8192, 4096)]) + logs.entry(42, 0, _LOG_AT, [(4096, word)])
    yield both.ljust(8 * _SECTOR, b"\0")
    across = logs.entry(9, 3 * _SECTOR, _LOG_AT, [(0, word)])
    yield across[_SECTOR:].ljust(3 * _SECTOR, b"\0") + across[:_SECTOR]


def ring_mended(data: bytes) -> bytes:
    """With the checksum that each entry should have, as far as it is there."""
    out = bytearray(data)
    for at in range(0, len(out) - 64, _SECTOR):
        length = int.from_bytes(out[at + 8 : at + 12], "little")
        if out[at : at + 4] == b"loge" and 64 <= length <= len(out) - at:
            out[at : at + length] = vhdx_log.summed(bytes(out[at : at + length]))
    return bytes(out)


@target("log of a vhdx", seeds=rings, mended=ring_mended, errors=[ImageError])
def log(data: bytes) -> object:
    ring = data[: 16 * _SECTOR].ljust(-(-max(1, min(len(data), 16 * _SECTOR)) // _SECTOR) * _SECTOR, b"\0")
    head = bytearray(b"head".ljust(_SECTOR, b"\0"))
    struct.pack_into("<Q32x16sHHIQ", head, 8, 7, logs.GUID, 0, 1, len(ring), _LOG_AT)
    front = bytes(0x10000) + vhdx_log.summed(bytes(head))
    path = written(front.ljust(_LOG_AT, b"\0") + ring, "log.vhdx")
    copy = path.with_name("copy.vhdx")
    try:
        vhdx_log.played_back(path, copy)
        with copy.open("rb") as file:
            return [os.pread(file.fileno(), 2, at) for at in (0, 4096, 8192)]
    finally:
        copy.unlink(missing_ok=True)
