"""Which Windows is installed on a disk, and which of virtio's drivers it has: read from its registry, nothing is started.

Source: Microsoft Learn, *Registry Hives*, *HKLM\\SYSTEM\\CurrentControlSet\\Services registry tree*; libguestfs' inspection
of Windows (which keys tell the version); ntfs-3g, ``ntfs_volume_check_hiberfile`` (how a hibernated Windows is told).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Protocol

from tinamou.errors import ImageError
from tinamou.facts.windows import WindowsFacts
from tinamou.images.blocks import Blocks, Unreadable
from tinamou.images.bootable import volumes
from tinamou.images.hive import Hive, HiveError, Key, Source, Value, number_of, text_of
from tinamou.images.ntfs import NtfsVolume
from tinamou.late import replace

__all__ = ["DRIVERS", "Asked", "existing", "lacking", "look", "search", "usable"]

DRIVERS = ("viostor", "vioscsi", "netkvm", "vioser", "balloon", "viorng")
"""Virtio's drivers by the names of their services."""


class Asked(Protocol):
    """A value of the registry as it should be: its hive, the key's path, name, type and bytes."""

    @property
    def hive(self) -> str:
        """Which hive."""
        ...

    @property
    def key(self) -> str:
        """Its key, below that."""
        ...

    @property
    def name(self) -> str:
        """Its name; the key's own has none."""
        ...

    @property
    def type(self) -> int:
        """Its type, as Windows numbers them."""
        ...

    @property
    def data(self) -> bytes:
        """Its bytes."""
        ...


_MOST_VOLUMES = 16
_AT_BOOT = 0
_ARCHES = {"AMD64": "amd64", "X86": "x86", "ARM64": "arm64"}
_MACHINES = {0x8664: "amd64", 0x14C: "x86", 0xAA64: "arm64"}
_HIBERNATED = (b"hibr", b"HIBR")


def look(blocks: Blocks) -> WindowsFacts | None:
    """The Windows on the first volume of a disk that has one; None where none is found or it cannot be read."""
    return search(blocks)[0]


def search(blocks: Blocks) -> tuple[WindowsFacts | None, str]:
    """The same, and what kept volumes of NTFS from being read."""
    kept = ""
    for start in volumes(blocks)[:_MOST_VOLUMES]:
        if blocks.read(start + 3, 8) != b"NTFS    ":
            continue
        try:
            if (found := _on(NtfsVolume(blocks, start), start)) is not None:
                return found, ""
        except (Unreadable, ImageError, HiveError) as error:
            kept = f"the volume at byte {start}: {error}"
        except (struct.error, UnicodeError, ValueError, OverflowError):
            kept = f"the volume at byte {start} is damaged"
    return None, kept


def lacking(blocks: Blocks, start: int, edits: Iterable[Asked]) -> list[str]:
    """Which values of the registry are not what they should be, on the volume that begins there. Raises as reading does."""
    volume, hives, found = NtfsVolume(blocks, start), dict[str, Hive](), []
    for edit in edits:
        if edit.hive not in hives:
            hives[edit.hive] = Hive(_hive(volume, edit.hive))
        value = _value(hives[edit.hive].find(*edit.key.split("\\")), edit.name)
        if value is None or (value.type, value.data) != (edit.type, edit.data):
            found.append(f"{edit.hive}\\{edit.key}\\{edit.name}")
    return found + [f"{name}: it is not whole" for name, hive in hives.items() if not hive.clean]


def existing(blocks: Blocks, start: int, edits: Iterable[Asked]) -> dict[str, dict[str, tuple[int, bytes]]]:
    """The keys on the way to those values that are there already (``SYSTEM\\Select``), and what is in those to be changed.

    Raises as reading does.
    """
    volume, hives, edits = NtfsVolume(blocks, start), dict[str, Hive](), list(edits)
    whole = {f"{edit.hive}\\{edit.key}" for edit in edits}
    found: dict[str, dict[str, tuple[int, bytes]]] = {}
    for edit in edits:
        if edit.hive not in hives:
            hives[edit.hive] = Hive(_hive(volume, edit.hive))
        parts = edit.key.split("\\")
        for depth in range(1, len(parts) + 1):
            path = "\\".join([edit.hive, *parts[:depth]])
            if path in found:
                continue
            if (key := hives[edit.hive].find(*parts[:depth])) is None:
                break
            found[path] = {name: (one.type, one.data) for name, one in key.values().items()} if path in whole else {}
    return found


def _hive(volume: NtfsVolume, name: str) -> Source:
    file = volume.open(("Windows", "System32", "config", name))
    if file is None:
        raise Unreadable(f"the hive {name} is gone")
    return file


def usable(found: WindowsFacts) -> tuple[str, ...]:
    """The drivers that serve: one of disks must be loaded at boot."""
    return tuple(name for name in found.drivers if name in found.boots or name not in ("viostor", "vioscsi"))


def _on(volume: NtfsVolume, start: int) -> WindowsFacts | None:
    folder = ("Windows", "System32", "config")
    system, software = volume.open((*folder, "SYSTEM")), volume.open((*folder, "SOFTWARE"))
    if system is None or software is None:
        return None
    unfit, control, boots = _unfit(volume), "ControlSet001", dict[str, bool]()
    database, arch = False, ""
    try:
        hive = Hive(system)
        unfit = unfit or ("" if hive.clean else "its registry was not written to the end (SYSTEM)")
        current = number_of(_value(hive.find("Select"), "Current"))
        control = f"ControlSet{current:03d}" if current and current < 1000 else control
        database = hive.find("DriverDatabase") is not None
        boots = _services(hive, control)
        place = hive.find(control, "Control", "Session Manager", "Environment")
        arch = _ARCHES.get(text_of(_value(place, "PROCESSOR_ARCHITECTURE")).upper(), "")
    except HiveError as error:
        unfit = unfit or f"its registry is damaged (SYSTEM): {error}"
    found = WindowsFacts(
        start=start,
        arch=arch or _built_for(volume),
        control=control,
        database=database,
        drivers=tuple(boots),
        boots=tuple(name for name, early in boots.items() if early),
        unfit=unfit,
    )
    return _named(found, software)


def _unfit(volume: NtfsVolume) -> str:
    """Why a volume may not be written to."""
    sleeping = volume.open(("hiberfil.sys",))
    if sleeping is not None and sleeping.read(0, 4) in _HIBERNATED:
        return "it is hibernated (fast startup does that too), and holds its disk in memory"
    return "its volume was not closed (it is marked dirty)" if volume.dirty else ""


def _services(hive: Hive, control: str) -> dict[str, bool]:
    """Virtio's drivers that are installed, and whether each is loaded at boot."""
    services = hive.find(control, "Services")
    found = {}
    for name in DRIVERS if services else ():
        key = services.child(name) if services else None
        if key is not None:
            found[name] = number_of(key.value("Start")) == _AT_BOOT
    return found


def _named(found: WindowsFacts, software: Source) -> WindowsFacts:
    try:
        hive = Hive(software)
        here = hive.find("Microsoft", "Windows NT", "CurrentVersion")
        path = text_of(_value(hive.find("Microsoft", "Windows", "CurrentVersion"), "DevicePath"))
    except HiveError as error:
        return replace(found, unfit=found.unfit or f"its registry is damaged (SOFTWARE): {error}")
    if here is None:
        return found
    unfit = found.unfit or ("" if hive.clean else "its registry was not written to the end (SOFTWARE)")
    build = text_of(here.value("CurrentBuildNumber")) or text_of(here.value("CurrentBuild"))
    return replace(
        found,
        product=_printable(text_of(here.value("ProductName"))),
        version=_version(here),
        build=int(build) if build.isascii() and build.isdigit() and len(build) < 7 else 0,
        server=text_of(here.value("InstallationType")).startswith("Server"),
        device_path=path,
        unfit=unfit,
    )


def _version(here: Key) -> tuple[int, int]:
    major, minor = number_of(here.value("CurrentMajorVersionNumber")), number_of(here.value("CurrentMinorVersionNumber"))
    if major is not None and minor is not None:
        return major, minor
    told = text_of(here.value("CurrentVersion")).split(".")
    return (int(told[0]), int(told[1])) if len(told) == 2 and all(one.isdigit() and len(one) < 4 for one in told) else (0, 0)


def _built_for(volume: NtfsVolume) -> str:
    """What its programs are built for (source: Microsoft, *PE format*); nothing where they are packed."""
    try:
        shell = volume.open(("Windows", "System32", "cmd.exe"))
        head = shell.read(0, 4096) if shell else b""
    except Unreadable:
        return ""
    if len(head) < 64 or head[:2] != b"MZ":
        return ""
    at = struct.unpack_from("<I", head, 60)[0]
    return _MACHINES.get(int.from_bytes(head[at + 4 : at + 6], "little"), "") if head[at : at + 4] == b"PE\0\0" else ""


def _value(key: Key | None, name: str) -> Value | None:
    return key.value(name) if key else None


def _printable(text: str) -> str:
    return "".join(one for one in text if one.isprintable())[:80]
