"""Volumes and registries of a Windows, for the readers that look for one on a disk."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from fuzz_folder import written
from fuzzing import target

from tinamou.images.blocks import RawBlocks
from tinamou.images.hive import Hive, HiveError
from tinamou.images.windows_inside import search

sys.path.append(str(Path(__file__).parent.parent))
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
