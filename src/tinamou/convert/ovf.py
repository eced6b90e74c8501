"""Reader of OVF descriptions, as VMware, VirtualBox and clouds export them.

Source: DMTF DSP0243 (Open Virtualization Format), DSP1041 (resource types of CIM_ResourceAllocationSettingData).
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from tinamou.convert import foreign
from tinamou.convert.result import Disk, Draft
from tinamou.convert.values import size, whole
from tinamou.convert.xml import Element, children, parse, text_of
from tinamou.errors import ImageError, SpecError
from tinamou.units import Size

__all__ = ["read"]

_CPU, _MEMORY, _NET, _DISK = "3", "4", "10", "17"
_DISCS = ("15", "16")
_CONTROLLERS = {"5": "IDE", "6": "SCSI", "20": "SATA", "19": "SATA"}
_THERE = {"1": "another device", "23": "a USB controller", "24": "a graphics card"}
_LOST = {"14": "a floppy drive", "21": "a serial port", "22": "a parallel port", "35": "a sound card"}
_UNITS = re.compile(r"byte\s*\*\s*2\s*\^\s*(\d+)", re.IGNORECASE)
_READ_SECTIONS = {"References", "DiskSection", "NetworkSection", "VirtualSystem", "VirtualSystemCollection"}
_READ_PARTS = {"Info", "Name", "OperatingSystemSection", "VirtualHardwareSection", "Machine"}


def read(text: str) -> Draft:
    """The first machine of a description. Raises SpecError; ImageError for a file that is not beside it."""
    root = parse(text, "the OVF description")
    draft = Draft("an OVF description", confined=True)
    systems = list(root.iter("VirtualSystem"))
    if not systems:
        raise SpecError("the OVF description has no machine in it", fix="export it again")
    system = systems[0]
    guest = _guest(system)
    foreign.named(draft, "VirtualSystem", text_of(system, "Name") or system.get("id", ""))
    for other in systems[1:]:
        draft.lost("VirtualSystem", other.get("id", ""), "a second machine in the same description", "export it on its own")
    _hardware(draft, root, system, windows=foreign.system(draft, "OperatingSystemSection", guest))
    _firmware(draft, system)
    _rest(draft, root, system)
    return draft


def _guest(system: Element) -> str:
    section = system.find("OperatingSystemSection")
    return (
        (section.get("osType", "") if section is not None else "")
        or text_of(section, "OSType")
        or text_of(section, "Description")
    )


def _hardware(draft: Draft, root: Element, system: Element, *, windows: bool) -> None:
    hardware = system.find("VirtualHardwareSection")
    items = [one for one in (hardware if hardware is not None else ()) if one.tag.endswith("Item")]
    controllers = {
        text_of(one, "InstanceID"): text_of(one, "ResourceSubType") or _CONTROLLERS[text_of(one, "ResourceType")]
        for one in items
        if text_of(one, "ResourceType") in _CONTROLLERS
    }
    sources = _sources(root)
    for item in items:
        kind, name = text_of(item, "ResourceType"), text_of(item, "ElementName") or "Item"
        if kind in (_DISK, *_DISCS):
            _disk(
                draft,
                item,
                name,
                sources,
                controllers.get(text_of(item, "Parent"), ""),
                cdrom=kind != _DISK,
                windows=windows,
            )
        elif kind == _NET:
            _net(draft, item, name, windows=windows)
        elif kind in (_CPU, _MEMORY):
            _amount(draft, item, name, kind)
        elif kind in _LOST:
            draft.lost("Item", name, f"{_LOST[kind]} is not there")
        elif kind not in _CONTROLLERS:
            draft.done("Item", name, f"{_THERE.get(kind, 'a device')} is there where the machine needs one")


def _amount(draft: Draft, item: Element, name: str, kind: str) -> None:
    number = whole(text_of(item, "VirtualQuantity")) or 0
    if kind == _CPU:
        foreign.topology(draft, name, number, whole(text_of(item, "CoresPerSocket")) or 0)
    else:
        draft.put("memory.size", str(_bytes(number, text_of(item, "AllocationUnits") or "byte * 2^20")))


def _bytes(number: int, units: str) -> Size:
    match = _UNITS.search(units)
    if match and len(match[1]) < 3:
        return Size(number << int(match[1]))
    return size(f"{number}{units[:1] if units.lower() != 'byte' else ''}", unit="B") or Size(number)


def _sources(root: Element) -> dict[str, tuple[str, str]]:
    """What a device names (``disk/vmdisk1``, ``file/file2``) → a file, the size of an empty disk."""
    files = {}
    for one in children(root, "References/File"):
        name = _beside(one.get("href", ""))
        if one.get("compression", "identity") not in ("identity", ""):
            fix = "unpack it, and take the attribute out of the description"
            raise ImageError(f"the disk {name} is compressed a second time", why=f"by {one.get('compression')}", fix=fix)
        if one.get("chunkSize"):
            raise ImageError(f"the disk {name} is cut into pieces", fix="join them, and name the whole in the description")
        files[one.get("id", "")] = name
    found = {f"file/{key}": (name, "") for key, name in files.items()}
    for one in children(root, "DiskSection/Disk"):
        if one.get("parentRef"):
            raise ImageError(
                f"the disk {one.get('diskId')} needs another disk", why="it is a layer on a parent", fix="export it whole"
            )
        amount = _bytes(whole(one.get("capacity", "")) or 0, one.get("capacityAllocationUnits") or "byte")
        found[f"disk/{one.get('diskId')}"] = (files.get(one.get("fileRef", ""), ""), str(amount))
    return found


def _beside(href: str) -> str:
    """A file beside the description. Raises ImageError for any other place."""
    path = PurePosixPath(href.replace("\\", "/"))
    if "://" in href or path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", href):
        why = "a description from elsewhere could name any file of this host there"
        raise ImageError(
            f"the OVF description names a file outside its folder: {href}", why=why, fix="put it beside the description"
        )
    return href


def _disk(
    draft: Draft,
    item: Element,
    name: str,
    sources: dict[str, tuple[str, str]],
    controller: str,
    *,
    cdrom: bool,
    windows: bool,
) -> None:
    named = text_of(item, "HostResource").removeprefix("ovf:").lstrip("/")
    if not named and cdrom:
        foreign.empty_drive(draft, name, "")
        return
    if named not in sources:
        draft.lost(name, named, "the description does not say what is on it", "add [[disk]]")
        return
    file, amount = sources[named]
    foreign.attach(draft, Disk(name, file, "" if file else amount, cdrom=cdrom), controller, windows=windows)


def _net(draft: Draft, item: Element, name: str, *, windows: bool) -> None:
    network = text_of(item, "Connection")
    kind = "nat" if "nat" in network.lower() or not network else "bridged"
    mac = text_of(item, "Address")
    foreign.connect(draft, name, kind, network, text_of(item, "ResourceSubType"), mac, windows=windows)


def _firmware(draft: Draft, system: Element) -> None:
    hardware = system.find("VirtualHardwareSection")
    settings = {one.get("key", ""): one.get("value", "") for one in children(hardware, "Config")}
    settings |= {one.get("key", ""): one.get("value", "") for one in children(hardware, "ExtraConfig")}
    vbox = system.find("Machine/Hardware/Firmware")
    kind = settings.pop("firmware", "") or (vbox.get("type", "") if vbox is not None else "")
    secure = any(
        settings.pop(key, "").lower() == "true" for key in ("bootOptions.efiSecureBootEnabled", "uefi.secureBoot.enabled")
    )
    if kind.lower().startswith("efi"):
        foreign.uefi(draft, "firmware", secure=secure)
    for key, value in settings.items():
        draft.done("Config", f"{key}={value}", "a setting of VMware's")


def _rest(draft: Draft, root: Element, system: Element) -> None:
    for section in [*root, *system]:
        if section.tag == "ProductSection":
            for one in section.iter("Property"):
                reason = "properties reach the guest through VMware's tools alone"
                draft.lost("Property", one.get("key", ""), reason, "give them as cloud-init: [seed]")
        elif section.tag not in _READ_SECTIONS | _READ_PARTS:
            about = text_of(section, "Info") or "not needed to start the machine"
            draft.done(section.tag, "", f"not carried over: {about[:100]}")
