"""Virtio's drivers for a Windows that is not running: which files of virtio-win.iso go where, what its registry must say.

From what is known of the Windows and from the disc's list of files alone: nothing is opened here. Source: virt-v2v and
libguestfs-common, ``mlcustomize/inject_virtio_win.ml`` (keys and values), ``convert_windows.ml`` (DevicePath, pnputil at the
first boot); Microsoft Learn, *HKLM\\SYSTEM\\CurrentControlSet\\Services registry tree*.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tinamou.errors import ImageError
from tinamou.facts.windows import WindowsFacts
from tinamou.late import dataclass

__all__ = ["FOLDER", "SERVICE", "Edit", "FileCopy", "Injection", "decide", "folders", "hive_commands", "refuse"]

FOLDER = "Windows/Drivers/VirtIO"
"""Where drivers wait for their devices; the folder virt-v2v uses."""

SERVICE = "tinamou-firstboot"
"""The service that is there until the first boot is over."""

SZ, EXPAND_SZ, BINARY, DWORD, MULTI_SZ = 1, 2, 3, 4, 7

_AT_BOOT = {"viostor": ("1001&REV_00", "1042&REV_01"), "vioscsi": ("1004&REV_00", "1048&REV_01")}
"""Drivers of disks, and the devices of vendor 1AF4 each is for: as before virtio 1.0, and since."""
_STAGED = ("NetKVM", "Balloon", "vioserial", "viorng", "vioinput", "viogpudo", "pvpanic", "fwcfg")
_ENDINGS = (".sys", ".inf", ".cat", ".dll", ".exe")
_AGENTS = {"amd64": "qemu-ga-x86_64.msi", "x86": "qemu-ga-i386.msi"}
_CLIENTS = {(6, 1): ("w7",), (6, 2): ("w8",), (6, 3): ("w8.1",)}
_SERVERS = {(6, 1): ("2k8R2",), (6, 2): ("2k12",), (6, 3): ("2k12R2",)}
_SINCE = ((26100, "2k25"), (20348, "2k22"), (17763, "2k19"), (0, "2k16"))
_ELEVEN = 22000
_CLASS = "{4D36E97B-E325-11CE-BFC1-08002BE10318}"
"""The class of controllers of disks."""
_NAME = re.compile(r"[A-Za-z0-9 ._()+/-]{1,200}")
_MOST_FILES = 256


@dataclass(frozen=True)
class Edit:
    """One value of the registry: its hive, its key below that, its name (``""``: the key's own), type, bytes, and why."""

    hive: str
    key: str
    name: str
    type: int
    data: bytes
    why: str


@dataclass(frozen=True)
class FileCopy:
    """A file of the disc, where it goes on the volume, and why."""

    source: str
    target: str
    why: str


@dataclass(frozen=True)
class Injection:
    """What is to be done: values, copies, files with a text of their own; ``drivers`` are those there then.

    ``notes`` say what the disc has not, or has for another release alone.
    """

    edits: tuple[Edit, ...]
    copies: tuple[FileCopy, ...]
    texts: dict[str, str]
    drivers: tuple[str, ...]
    notes: tuple[str, ...]


def folders(found: WindowsFacts) -> tuple[str, ...]:
    """The folders of virtio-win.iso that have drivers for a release, the best first; none for one before Windows 7.

    Windows 10 and all since have one model of drivers: those of an earlier release serve where there are none of its own.
    """
    if found.version != (10, 0):
        return (_SERVERS if found.server else _CLIENTS).get(found.version, ())
    if found.server:
        return tuple(name for build, name in _SINCE if found.build >= build)
    return ("w11", "w10") if found.build >= _ELEVEN else ("w10",)


def decide(found: WindowsFacts, listing: Iterable[str]) -> Injection:
    """What makes this Windows start from virtio with the disc whose files are ``listing``, each with its reason.

    Raises ImageError for a Windows that may not be changed now or is not known, and a disc without a driver for its disk.
    """
    refuse(found)
    disc = _Disc(found, listing)
    notes, edits, copies, drivers = list[str](), list[Edit](), list[FileCopy](), list[str]()
    for name, devices in _AT_BOOT.items():
        files = disc.driver(name)
        system = next((one for one in files if _last(one) == f"{name}.sys"), "")
        if not system and name == "viostor":
            raise ImageError(f"the disc of drivers has no {name} for {found.name}", why=disc.lack(name), fix=_OTHER_DISC)
        if not system:
            notes.append(f"the disc has no {name}: a disk with interface = scsi would not be found ({disc.lack(name)})")
            continue
        drivers.append(name)
        why = f"{name} is loaded before the disk is there: the loader takes it from here"
        copies.append(FileCopy(system, f"Windows/System32/drivers/{name}.sys", why))
        edits += _at_boot(found, name, devices)
    for name in (*_AT_BOOT, *_STAGED):
        files = disc.driver(name)
        copies += [FileCopy(one, f"{FOLDER}/{_last(one)}", f"{name} is installed at the first boot") for one in files]
        if name == "NetKVM":
            drivers += ["netkvm"] if files else []
            notes += (
                [] if files else [f"the disc has no NetKVM: a card with model = virtio would not work ({disc.lack(name)})"]
            )
    agent = disc.file("guest-agent", _AGENTS[found.arch])
    if agent:
        copies.append(FileCopy(agent, f"{FOLDER}/{_last(agent)}", "the guest agent is installed at the first boot"))
    else:
        notes.append(f"the disc has no guest-agent/{_AGENTS[found.arch]}: exec and cp need it in the guest")
    edits += [*_device_path(found), *_first_boot(found)]
    texts = {f"{FOLDER}/firstboot.cmd": first_boot(_last(agent) if agent else "")}
    return Injection(tuple(edits), tuple(copies), texts, tuple(drivers), (*notes, *disc.taken))


_OTHER_DISC = "name a virtio-win.iso that has it; the newest are on fedorapeople.org, 0.1.173 is the last for Windows 7"


def refuse(found: WindowsFacts) -> None:
    """Raise ImageError for a Windows that may not be changed now, and one that no drivers are known for."""
    if found.unfit:
        raise ImageError(f"{found.name or 'the Windows'} cannot be changed now", why=found.unfit, fix=found.fix)
    if not found.product or not folders(found):
        release = f"version {found.version[0]}.{found.version[1]}, build {found.build}"
        raise ImageError("no drivers are known for this Windows", why=f"it says to be {found.name or 'nothing'}, {release}")
    if found.arch not in _AGENTS:
        why = f"it is for {found.arch or 'a processor it does not name'}, and only amd64 and x86 are known here"
        raise ImageError(f"{found.name} cannot be given drivers", why=why)


class _Disc:
    """The files of a disc by folder, in any case; those with unusual names are left out."""

    def __init__(self, found: WindowsFacts, listing: Iterable[str]) -> None:
        self._found = found
        self._by_folder: dict[str, list[str]] = {}
        for path in listing:
            plain = path.removeprefix("./").removeprefix("/")
            if _NAME.fullmatch(plain) and ".." not in plain:
                self._by_folder.setdefault(plain.rpartition("/")[0].lower(), []).append(plain)
        self.taken: dict[str, None] = {}

    def driver(self, name: str) -> list[str]:
        """The files of a driver for the release and its processor, from the first folder that has them."""
        best = folders(self._found)
        for folder in best:
            files = self._by_folder.get(f"{name}/{folder}/{self._found.arch}".lower(), [])
            wanted = sorted(one for one in files if _last(one).endswith(_ENDINGS))[:_MOST_FILES]
            if any(one.endswith(".inf") for one in map(_last, wanted)):
                if folder != best[0]:
                    self.taken[f"the disc has no {name} for {best[0]}: that for {folder} is taken, of the same model"] = None
                return wanted
        return []

    def file(self, folder: str, name: str) -> str:
        """The path of a file; ``""`` where there is none."""
        return next((one for one in self._by_folder.get(folder.lower(), []) if _last(one) == name.lower()), "")

    def lack(self, name: str) -> str:
        """What was looked for."""
        return "there is no " + " nor ".join(f"{name}/{one}/{self._found.arch}" for one in folders(self._found))


def _last(path: str) -> str:
    return path.rpartition("/")[2].lower()


# ── registry ──


def _text(content: str) -> bytes:
    return f"{content}\0".encode("utf-16-le")


def _number(content: int) -> bytes:
    return struct.pack("<I", content)


def _at_boot(found: WindowsFacts, name: str, devices: Sequence[str]) -> Iterator[Edit]:
    """The service, and which devices it is for."""
    service = f"{found.control}\\Services\\{name}"
    early = "the service is started by the loader: at boot, in the group of controllers of disks"
    yield Edit("SYSTEM", service, "Type", DWORD, _number(1), early)
    yield Edit("SYSTEM", service, "Start", DWORD, _number(0), early)
    yield Edit("SYSTEM", service, "Group", SZ, _text("SCSI miniport"), early)
    yield Edit("SYSTEM", service, "ErrorControl", DWORD, _number(1), early)
    yield Edit("SYSTEM", service, "ImagePath", EXPAND_SZ, _text(f"system32\\drivers\\{name}.sys"), early)
    for device in (f"VEN_1AF4&DEV_{one}" for one in devices):
        yield from _in_database(found, name, device) if found.database else _critical(found, name, device)


def _critical(found: WindowsFacts, name: str, device: str) -> Iterator[Edit]:
    why = "until Windows 7 the service of a disk's controller is looked up here"
    key = f"{found.control}\\Control\\CriticalDeviceDatabase\\PCI#{device}"
    yield Edit("SYSTEM", key, "Service", SZ, _text(name), why)
    yield Edit("SYSTEM", key, "ClassGUID", SZ, _text(_CLASS), why)


def _in_database(found: WindowsFacts, name: str, device: str) -> Iterator[Edit]:
    """A package of drivers as if it had been installed; its version is looked at since Windows 10."""
    why = "since Windows 8 the service of a device is looked up in the database of drivers"
    file, configuration = f"tinamou-{name}.inf", f"{name}_conf"
    label = f"{file}_{found.arch}_0000000000000000"
    package = f"DriverDatabase\\DriverPackages\\{label}"
    version = bytes.fromhex("00ff0900 00000000 7be9364d25e3ce11 bfc108002be10318") + bytes(24)
    listed = _text(configuration) + b"\0\0"
    for key, value, kind, data in (
        (f"DriverDatabase\\DriverInfFiles\\{file}", "", MULTI_SZ, _text(label) + b"\0\0"),
        (f"DriverDatabase\\DriverInfFiles\\{file}", "Active", SZ, _text(label)),
        (f"DriverDatabase\\DriverInfFiles\\{file}", "Configurations", MULTI_SZ, listed),
        (f"DriverDatabase\\DeviceIds\\PCI\\{device}", file, BINARY, b"\x01\xff\0\0"),
        (package, "Version", BINARY, version),
        (f"{package}\\Configurations\\{configuration}", "ConfigFlags", DWORD, _number(0)),
        (f"{package}\\Configurations\\{configuration}", "Service", SZ, _text(name)),
        (f"{package}\\Descriptors\\PCI\\{device}", "Configuration", SZ, _text(configuration)),
    ):
        yield Edit("SYSTEM", key, value, kind, data, why)


def _device_path(found: WindowsFacts) -> Iterator[Edit]:
    place = f"%SystemRoot%\\{FOLDER.removeprefix('Windows/').replace('/', chr(92))}"
    parts = [one for one in (found.device_path or "%SystemRoot%\\inf").split(";") if one]
    if place.lower() in (one.lower() for one in parts):
        return
    why = "drivers of new devices are looked for in this folder too"
    key = "Microsoft\\Windows\\CurrentVersion"
    yield Edit("SOFTWARE", key, "DevicePath", EXPAND_SZ, _text(";".join([*parts, place])), why)


def _first_boot(found: WindowsFacts) -> Iterator[Edit]:
    """A service of one line: what it starts goes on when it is called a failure for not being a service's program."""
    why = "the other drivers and the guest agent are installed once Windows runs; the service removes itself"
    key, script = f"{found.control}\\Services\\{SERVICE}", f"%SystemRoot%\\{FOLDER[8:]}\\firstboot.cmd".replace("/", "\\")
    command = f'%SystemRoot%\\System32\\cmd.exe /d /c start "" /b %SystemRoot%\\System32\\cmd.exe /d /c "{script}"'
    yield Edit("SYSTEM", key, "Type", DWORD, _number(0x10), why)
    yield Edit("SYSTEM", key, "Start", DWORD, _number(2), why)
    yield Edit("SYSTEM", key, "ErrorControl", DWORD, _number(0), why)
    yield Edit("SYSTEM", key, "ImagePath", EXPAND_SZ, _text(command), why)
    yield Edit("SYSTEM", key, "ObjectName", SZ, _text("LocalSystem"), why)
    yield Edit("SYSTEM", key, "DisplayName", SZ, _text("Virtio drivers and guest agent, once"), why)


def first_boot(agent: str) -> str:
    """The script of the first boot; what it said is beside it. It is run again at the next one where the agent fails."""
    lines = [
        "@echo off",
        "setlocal",
        'set "here=%~dp0"',
        'call :main >> "%here%firstboot.log" 2>&1',
        "exit /b",
        ":main",
        'for %%f in ("%here%*.inf") do pnputil -i -a "%%f"',
    ]
    if agent:
        install = f'start "" /wait msiexec /i "%here%{agent}" /qn /norestart /l*v "%here%agent.log"'
        lines += [
            "for /l %%n in (1,1,10) do (",
            f"  {install}",
            "  if not errorlevel 1 goto done",
            "  if errorlevel 3010 if not errorlevel 3011 goto done",
            "  ping -n 61 127.0.0.1 > nul",
            ")",
            "echo the guest agent was not installed: this is tried again at the next boot",
            "exit /b 1",
        ]
    return "\r\n".join([*lines, ":done", f"sc delete {SERVICE}", ""])


def hive_commands(edits: Iterable[Edit], hive: str, existing: Mapping[str, Mapping[str, tuple[int, bytes]]]) -> str:
    """The edits of one hive in the words of hivexsh, which makes keys one by one and gives a key all of its values at once.

    ``existing`` are the keys on the way that are there, below the hive's name, with their values. Empty where nothing is to
    be changed. Raises ImageError for values there whose names cannot be said.
    """
    keys: dict[str, dict[str, tuple[int, bytes]]] = {}
    for edit in edits:
        if edit.hive == hive:
            path = f"{hive}\\{edit.key}"
            values = keys.setdefault(path, dict(existing.get(path, {})))
            for other in [one for one in values if one.upper() == edit.name.upper()]:
                del values[other]
            values[edit.name] = edit.type, edit.data
    lines, made = list[str](), set(existing)
    for path, values in keys.items():
        parts = path.split("\\")
        for depth in range(1, len(parts)):
            if (below := "\\".join(parts[: depth + 1])) not in made:
                lines += [_to(parts[1:depth]), f"add {parts[depth]}"]
                made.add(below)
        lines += [_to(parts[1:]), f"setval {len(values)}", *_said(path, values)]
    return "\n".join([*lines, "commit", ""]) if lines else ""


def _to(parts: Sequence[str]) -> str:
    """The way to a key; a blank ends that to the topmost, where a last backslash would join two lines."""
    return f"cd \\{chr(92).join(parts)}" if parts else "cd \\ "


def _said(path: str, values: Mapping[str, tuple[int, bytes]]) -> Iterator[str]:
    for name, (kind, data) in values.items():
        if not (name.isascii() and name.isprintable()) or name != name.strip() or name == "@":
            why = f"the key {path} has a value with an unusual name beside the one to be changed"
            raise ImageError("the registry cannot be changed", why=why)
        yield name or "@"
        yield f"hex:{kind}:{data.hex(',')}"
