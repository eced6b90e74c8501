"""Reader of Parallels Desktop's machines: config.pvs of a .pvm folder, and the description of each disk beside it.

::

    NAME.pvm/config.pvs                        the machine
    NAME.pvm/DISK.hdd/DiskDescriptor.xml       a disk: its pieces, the layers of its snapshots
    NAME.pvm/DISK.hdd/DISK.hdd.0.{GUID}.hds    a layer, raw or of Parallels' own format

Source: Parallels' PrlEnums.h and its model of a machine's description (libprlsdk, libprlxmlmodel of OpenVZ); QEMU
docs/interop/prl-xml.rst, docs/interop/parallels.rst.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from tinamou.convert import foreign
from tinamou.convert.account import Rules, report
from tinamou.convert.result import Disk, Draft
from tinamou.convert.values import colons, size, whole
from tinamou.convert.xml import Element, children, parse, shown_of, text_of
from tinamou.errors import SpecError

__all__ = ["DESCRIPTION", "DESCRIPTOR", "read"]

DESCRIPTION = "config.pvs"
DESCRIPTOR = "DiskDescriptor.xml"

_WINDOWS, _MACOS, _WINDOWS_10 = "8", "7", "2063"
_APPLES = "2"
"""A machine of macOS' own virtualization, by its VmType."""
_ARM, _ARM_FIRMWARE = "1", "5"
_SHARED = "Settings/Tools/SharedFolders/HostSharing"
_SWITCHES = (
    "Identification/VmType",
    *(f"Settings/{name}" for name in ("VmEncryptionInfo/Enabled", "Autoprotect/Enabled", "Runtime/UndoDisks")),
    *(f"Settings/Startup/{name}" for name in ("AutoStart", "Bios/EfiEnabled", "Bios/EfiSecureBoot")),
    *(f"{_SHARED}/{name}" for name in ("Enabled", "ShareUserHomeDir", "ShareAllMacDisks", "SharedCloud")),
    *(f"Hardware/Cpu/{name}" for name in ("Type", "Number", "AutoCountEnabled", "CpuLimitValue", "VirtualizedHV")),
    *(f"Hardware/{name}" for name in ("Memory/RAM", "Memory/RamAutoSizeEnabled", "Clock/TimeShift", "TpmChip/Type")),
    "Hardware/Video/Enable3DAcceleration",
)
_BUSES = {"0": "ide", "1": "scsi", "2": "sata", "3": "virtio", "4": "usb"}
_NETWORKS = {"0": "internal", "1": "nat", "2": "bridged", "5": "nat", "6": "bridged"}
_CARDS = {"0": "", "1": "rtl8139", "2": "e1000", "3": "virtio", "4": "e1000e", "5": "hyper-v"}
_HARD_DISK, _DISC, _NETWORK = "6", "5", "8"
_NO_KEY = "{00000000-0000-0000-0000-000000000000}"
_OWN = "how Parallels runs the machine and shows it, not what it is"
_RULES: Rules = (
    (r"(.*/)?@(dyn_lists|id|schemaVersion|\w+_patch)", "done", "how Parallels keeps its lists", ""),
    (r"AppVersion ValidRc InstalledSoftware Identification/.* ExternalConfigInfo(/.*)?", "done", "what Parallels notes", ""),
    (r"Security(/.*)?", "done", "who may change a machine is whoever may read its files here", "tinamou allow"),
    (r"Settings/Tools/SharedFolders/.*", "done", "no folder of the host is given to the guest unasked", "share"),
    (r"Settings/(Tools|Shared\w+|VirtualPrintersInfo)(/.*)?", "done", "the guest has no tools of Parallels' here", ""),
    (r"Settings/RemoteDisplay/.*", "changed", "the screen is on a Unix socket of the machine", 'set display = "vnc"'),
    (r"Settings/GlobalNetwork/.*", "done", "the guest's own settings are in its disk", ""),
    (r"Settings/UsbController(/.*)? Hardware/(USB|UsbConnectHistory|BTConnectHistory)(/.*)?", "done",
     "the board has a USB controller; devices of the host are named by the machine", "usb"),
    (r"Settings(/.*)?", "done", _OWN, ""),
    (r"Hardware/(Cpu|Chipset|Memory|Video|HibernateState|VirtIO\w*|Clock|TpmChip)(/.*)?", "done",
     "the board, its memory and its screen are those every machine has", ""),
    (r"Hardware/(Hdd|CdRom|NetworkAdapter|Serial|Sound)(/.*)?", "done", "how the device was shown there", ""),
    (r"Hardware/(Fdd|Parallel|Printer)(/.*)?", "lost", "there is no floppy drive, parallel port or printer", ""),
    (r"Hardware/(PciVideoAdapter|Generic\w+)(/.*)?", "lost", "a device of the other host", "pci, usb"),
    (r"Hardware", "done", "it is empty", ""),
)  # fmt: skip


def read(text: str, companion: Callable[[str], str] = lambda _: "") -> Draft:
    """The machine; ``companion`` gives the text of a file in its folder, empty where there is none.

    Raises SpecError for an encrypted machine, and for one of macOS' own virtualization.
    """
    root = parse(text, "the Parallels machine")
    guest = text_of(root, "Settings/General/OsType")
    if text_of(root, "Identification/VmType") == _APPLES or guest == _MACOS:
        why = "such a machine runs on Apple's hardware alone"
        raise SpecError("the Parallels machine is one of macOS", why=why, fix="name a machine of another system")
    if _on(root, "Settings/VmEncryptionInfo/Enabled"):
        raise SpecError("the Parallels machine is encrypted", fix="remove the encryption there: Security, Turn Off")
    draft = Draft("a Parallels machine", confined=True)
    foreign.named(draft, "VmName", text_of(root, "Identification/VmName"))
    number = text_of(root, "Settings/General/OsNumber")
    windows = guest == _WINDOWS
    if windows:
        foreign.system(draft, "OsNumber", f"windows{' 10' if number == _WINDOWS_10 else ''} ({number})")
    draft.done("OsType", f"{guest} {number}".strip(), "it decides about drivers alone")
    _size(draft, root)
    _firmware(draft, root)
    _drives(draft, root, companion, windows=windows)
    draft.nets = []
    for one in children(root, "Hardware/NetworkAdapter"):
        _adapter(draft, one, windows=windows)
    _seen_and_heard(draft, root)
    _settings(draft, root)
    report(draft, root.unread(), _RULES)
    return draft


def _on(node: Element, path: str, default: str = "0") -> bool:
    return (text_of(node, path) or default) not in ("0", "")


def _size(draft: Draft, root: Element) -> None:
    if text_of(root, "Hardware/Cpu/Type") == _ARM or text_of(root, "Settings/Startup/Bios/EfiEnabled") == _ARM_FIRMWARE:
        draft.put("arch", "aarch64")
    count = whole(text_of(root, "Hardware/Cpu/Number")) or 1
    foreign.topology(draft, "Cpu", count, 1)
    amount = size(text_of(root, "Hardware/Memory/RAM") or "256", unit="M")
    draft.put("memory.size", str(amount) if amount else "512M")
    for path, what, field in (("Cpu/AutoCountEnabled", "CPUs", "cpus"), ("Memory/RamAutoSizeEnabled", "memory", "memory")):
        if _on(root, f"Hardware/{path}"):
            draft.changed(path, "1", f"Parallels chose the {what} at each start; it has what it had last", f"set {field}")
    if _on(root, "Hardware/Cpu/CpuLimitValue"):
        limit = text_of(root, "Hardware/Cpu/CpuLimitValue")
        draft.lost("Cpu", f"CpuLimitValue {limit}", "the unit of its limit is not told", "set limits.cpu")
    if _on(root, "Hardware/Cpu/VirtualizedHV"):
        draft.done("Cpu", "VirtualizedHV 1", "the guest sees the CPU's virtualization where the host gives it")


def _firmware(draft: Draft, root: Element) -> None:
    kind = text_of(root, "Settings/Startup/Bios/EfiEnabled") or "0"
    secure = _on(root, "Settings/Startup/Bios/EfiSecureBoot")
    if kind != "0":
        foreign.uefi(draft, "Bios", secure=secure, files=f"EfiEnabled {kind}")
    else:
        draft.done("Bios", f"EfiEnabled 0, EfiSecureBoot {int(secure)}", "SeaBIOS is there without being asked for")
    if (chip := text_of(root, "Hardware/TpmChip/Type") or "0") != "0":
        foreign.tpm(draft, "TpmChip", chip)


def _order(draft: Draft, root: Element) -> dict[tuple[str, str], int]:
    """The place of each device among those that are started from: its type and index, and how soon."""
    used = [one for one in children(root, "Settings/Startup/BootingOrder/BootDevice") if _on(one, "InUse")]
    used.sort(key=lambda one: whole(text_of(one, "BootingNumber")) or 0)
    names = [(text_of(one, "Type"), text_of(one, "Index")) for one in used]
    if any(kind == _NETWORK for kind, _ in names):
        draft.lost("BootingOrder", "network", "network cards carry no boot programs", "boot from a disc or a disk")
    if (listed := root.find("Settings/Startup/BootingOrder")) is not None:
        draft.done("BootingOrder", listed.shown(), "the machine's image is what is started from", "set boot.order")
    return {name: place for place, name in enumerate(names)}


def _drives(draft: Draft, root: Element, companion: Callable[[str], str], *, windows: bool) -> None:
    order = _order(draft, root)
    undone = text_of(root, "Settings/Runtime/UndoDisks") or "0"
    for number, one in enumerate(children(root, "Hardware/Hdd")):
        bus = _BUSES.get(kind := text_of(one, "InterfaceType"), kind)
        disk = _hard_disk(draft, f"Hdd {number}", one, companion)
        if disk is not None:
            disk.order = order.get((_HARD_DISK, text_of(one, "Index")))
            disk.discards = f"UndoDisks {undone}" if undone != "0" else ""
            foreign.attach(draft, disk, bus, windows=windows)
    for number, one in enumerate(children(root, "Hardware/CdRom")):
        where, file, index = f"CdRom {number}", text_of(one, "SystemName"), text_of(one, "Index")
        there = file and _on(one, "Enabled", "1") and _on(one, "Connected") and text_of(one, "EmulatedType") == "1"
        if there and not foreign.tools_disc(file):
            draft.done(where, one.shown(), "the disc in the drive")
            disc = Disk(where, _inside(file), cdrom=True, order=order.get((_DISC, index)))
            foreign.attach(draft, disc, "", windows=windows)
        else:
            foreign.empty_drive(draft, where, one.shown())


def _inside(path: str) -> str:
    """A path in the machine's folder: it may lie elsewhere by now than it did there."""
    return re.split(r"\.(?:pvm|macvm)/", path)[-1]


def _hard_disk(draft: Draft, where: str, node: Element, companion: Callable[[str], str]) -> Disk | None:
    """The disk as its layer; None, and a note, for one whose content cannot be had so."""
    name, shown = text_of(node, "SystemName"), node.shown()
    if text_of(node, "EmulatedType") != "1" or not name:
        draft.lost(where, shown, "it was a disk of the other host", "copy it into a file, and add [[disk]]")
        return None
    if not (_on(node, "Enabled", "1") and _on(node, "Connected", "1")):
        draft.lost(where, shown, "it was not connected", "add [[disk]]")
        return None
    draft.done(where, shown, "what is in a disk is told by its content")
    folder = posixpath.normpath(_inside(name))
    if folder.startswith(("/", "..")):
        draft.lost(where, name, "it lies outside the machine's folder", f"put it there, where {DESCRIPTION} is")
        return None
    described = companion(f"{folder}/{DESCRIPTOR}")
    return _layer(draft, where, folder, parse(described, DESCRIPTOR)) if described else Disk(where, folder)


def _layer(draft: Draft, where: str, folder: str, root: Element) -> Disk | None:
    """The file that holds a disk: the pieces and layers of others are put together by Parallels' own tool."""
    pieces = root.findall("StorageData/Storage")
    images = [(text_of(one, "Type"), text_of(one, "File")) for piece in pieces for one in piece.findall("Image")]
    key = text_of(root, "Disk_Parameters/Encryption/Engine") or _NO_KEY
    reason = (
        "its content is encrypted" if key != _NO_KEY
        else f"it is split into {len(pieces)} pieces" if len(pieces) > 1
        else f"it is {len(images)} layers, made by snapshots" if len(images) > 1
        else "its description names no file" if not images or not images[0][1]
        else ""
    )  # fmt: skip
    if reason:
        fix = "delete the machine's snapshots there, then prl_disk_tool merge --hdd DISK.hdd"
        draft.lost(where, folder, f"{reason}, and QEMU reads one whole layer", "decrypt it there" if key != _NO_KEY else fix)
        return None
    kind, file = images[0]
    if (padding := text_of(root, "Disk_Parameters/Padding") or "0") != "0":
        draft.check(where, f"Padding {padding}", "QEMU's documents do not say what padding means", "compare the content")
    place = file if file.startswith("/") else posixpath.normpath(f"{folder}/{file}")
    return Disk(where, place, format="raw" if kind == "Plain" else "")


def _adapter(draft: Draft, node: Element, *, windows: bool) -> None:
    where = f"NetworkAdapter {text_of(node, 'Index')}".strip()
    if not (_on(node, "Enabled", "1") and _on(node, "Connected", "1")):
        foreign.uncabled(draft, where, f"MAC {text_of(node, 'MAC')}")
        draft.done(where, node.shown(), "it was connected to nothing")
        return
    mode, kind = text_of(node, "EmulatedType"), text_of(node, "AdapterType") or "0"
    name = text_of(node, "VirtualNetworkID") or text_of(node, "AdapterName")
    mac = colons(text_of(node, "MAC"))
    foreign.connect(draft, where, _NETWORKS.get(mode, mode), name, _CARDS.get(kind, kind), mac, windows=windows)
    draft.done(where, node.shown(), "the network it was on, and the card's kind")
    for path in ("LinkRateLimit/Enable", "Firewall/Enabled"):
        if _on(node, path):
            said = shown_of(node.find(path.partition("/")[0]))
            draft.lost(where, said, "limits and rules of a card are not carried over", "docs/guides/network.md")
    if _on(node, "StaticAddress"):
        draft.lost(where, "StaticAddress 1", "the guest's address is its own, or the network's to give", "address = …")


def _seen_and_heard(draft: Draft, root: Element) -> None:
    """Screen, sound and serial ports."""
    video = root.find("Hardware/Video")
    if video is not None and _on(video, "Enable3DAcceleration"):
        foreign.undrawn(draft, "Video", f"Enable3DAcceleration {text_of(video, 'Enable3DAcceleration')}")
    foreign.screen(draft, "Video", f"VideoMemorySize {text_of(video, 'VideoMemorySize')}")
    for one in children(root, "Hardware/Sound"):
        if _on(one, "Enabled", "1") and not draft.get("devices.sound"):
            draft.put("devices.sound", "hda")
            kind = f"AdvancedType {text_of(one, 'AdvancedType')}"
            draft.changed("Sound", kind, "the sound card is Intel's (hda); it is heard through the screen's server")
        draft.done("Sound", one.shown(), "what it is heard through was the other host's")
    ports = list(children(root, "Hardware/Serial"))
    for one in ports:
        draft.done("Serial", one.shown(), "the first one that is on is the guest's console")
    for number, one in enumerate(one for one in ports if _on(one, "Enabled", "1")):
        led = text_of(one, "SystemName") if _on(one, "Connected") else ""
        if number:
            foreign.serial(draft, "Serial", f"SystemName {led}".strip(), led)
        elif led:
            draft.lost(
                "Serial", f"SystemName {led}", "it led there; here it is the console", "tinamou console, tinamou logs"
            )


def _settings(draft: Draft, root: Element) -> None:
    said = [f"{path.rpartition('/')[2]} {one.text}" for path in _SWITCHES if (one := root.find(path)) is not None]
    draft.done("switches", ", ".join(said), "what of these is on is told by the notes before")
    folders = [one for one in children(root, f"{_SHARED}/SharedFolder") if _on(one, "Enabled", "1")]
    if _on(root, f"{_SHARED}/Enabled"):
        for one in folders:
            foreign.folder(draft, "SharedFolder", text_of(one, "Path") or text_of(one, "Name"))
            draft.done("SharedFolder", one.shown(), "what it was")
        for key in ("ShareUserHomeDir", "ShareAllMacDisks", "SharedCloud"):
            if _on(root, f"{_SHARED}/{key}"):
                draft.lost("HostSharing", key, "folders of the other host are not here", 'share = ["FOLDER"]')
    if _on(root, "Settings/Startup/AutoStart"):
        name = draft.get("name") or "NAME"
        draft.lost("AutoStart", text_of(root, "Settings/Startup/AutoStart"), "it started there by itself",
                   f"tinamou autostart {name}")  # fmt: skip
    if _on(root, "Settings/Autoprotect/Enabled"):
        period = text_of(root, "Settings/Autoprotect/Period")
        draft.lost("Autoprotect", f"Period {period}", "snapshots there were made by themselves", "tinamou snapshot schedule")
    if _on(root, "Hardware/Clock/TimeShift"):
        shift = text_of(root, "Hardware/Clock/TimeShift")
        draft.check("Clock", f"TimeShift {shift}", "the guest's clock is the host's; the unit of its shift is not told",
                    "set clock.offset")  # fmt: skip
