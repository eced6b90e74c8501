"""Reader of OVF descriptions, as VMware, VirtualBox and clouds export them.

Source: DMTF DSP0243 (Open Virtualization Format), DSP1041 (resource types of CIM_ResourceAllocationSettingData).
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from tinamou.convert import foreign
from tinamou.convert.account import HIDDEN, Rules, hidden, report
from tinamou.convert.result import Disk, Draft
from tinamou.convert.values import size, whole
from tinamou.convert.xml import Element, attribute, children, parse, text_of
from tinamou.errors import ImageError, SpecError
from tinamou.units import Size

__all__ = ["read"]

_CPU, _MEMORY, _NET, _DISK = "3", "4", "10", "17"
_DISCS = ("15", "16")
_CONTROLLERS = {"5": "IDE", "6": "SCSI", "20": "SATA", "19": "SATA"}
_THERE = {"20": "a controller", "23": "a USB controller"}
_LOST = {"14": "a floppy drive", "22": "a parallel port", "35": "a sound card"}
_SERIAL, _OTHER = "21", "1"
_VIDEO = "24"
_CONSOLE = "the serial port is the guest's console"
_UNITS = re.compile(r"byte\s*\*\s*2\s*\^\s*(\d+)", re.IGNORECASE)
_VIRTIO = "3"
"""A card of this kind is a virtio one to oVirt. Source: oVirt's OvfReader and its VmInterfaceType."""
_PLACED = "where a device sits, and what the description calls it, is tinamou's to choose"
_RULES: Rules = (
    (r"(.*/)?Info (.*/)?(Label|Description|Annotation)", "done", "words for whoever reads the description", ""),
    (r"References/File/@.* DiskSection/Disk/@.*", "done", "what is in a disk is told by its content", ""),
    (r"NetworkSection(/.*)?", "done", "the networks are those of its cards", ""),
    (
        r".*/(Item|StorageItem|EthernetPortItem)/(@.*|Config.*|AddressOnParent|Address|Parent|InstanceI[dD]|.*)",
        "done",
        _PLACED,
        "",
    ),
    (r".*OperatingSystemSection(/.*)?", "done", "the guest's system decides about drivers alone", ""),
    (r".*/VirtualHardwareSection/(System|@.*)(/.*)?", "done", "the board has what the machine needs", ""),
    (r".*/(Config|ExtraConfig)(/.*)?", "done", "a setting of VMware's", ""),
    (
        r"(VirtualSystem|VirtualSystemCollection)/Machine(/.*)?",
        "done",
        "what VirtualBox notes about the machine once more",
        "",
    ),
    (
        r"VirtualSystem.*/(EulaSection|AnnotationSection|ProductSection)(/.*)?",
        "done",
        "words for whoever runs the machine",
        "",
    ),
    (r"DeploymentOptionSection(/.*)?", "done", "sizes to choose from", ""),
    (r"@.* VirtualSystem.*/@.* Strings(/.*)?", "done", "what the description calls itself and its parts", ""),
    (r".*", "lost", "no rule of tinamou's reads this", "see whether the guest needs it"),
)


def read(text: str) -> Draft:
    """The first machine of a description. Raises SpecError; ImageError for a file that is not beside it."""
    root = parse(text, "the OVF description")
    _named(root)
    draft = Draft("an OVF description", confined=True)
    systems = list(root.iter("VirtualSystem"))
    if not systems:
        raise SpecError("the OVF description has no machine in it", fix="export it again")
    system = systems[0]
    guest = _guest(system)
    foreign.named(draft, "VirtualSystem", text_of(system, "Name") or system.get("id"))
    for other in systems[1:]:
        draft.lost("VirtualSystem", other.shown(), "a second machine in the same description", "export it on its own")
    _hardware(draft, root, system, windows=foreign.system(draft, "OperatingSystemSection", guest))
    _firmware(draft, system)
    if system.find("Machine") is not None:
        foreign.screen(draft, "Machine", "VirtualBox's own description of it")
    for one in root.iter("ProductSection"):
        one.seen = True
    draft.done("OperatingSystemSection", guest, "the guest's system decides about drivers alone")
    for one in root.iter("Property"):
        _property(draft, one)
    report(draft, root.unread(), _RULES)
    return draft


def _named(root: Element) -> None:
    """Elements that say by their type what they are, as oVirt writes them (``ovf:DiskSection_Type``), get that name."""
    todo = [root]
    while todo:
        node = todo.pop()
        if node.tag in ("Section", "Content") and (kind := node.get("type")):
            node.tag = kind.rpartition(":")[2].removesuffix("_Type")
            node.seen = False
        todo += node.inside


def _guest(system: Element) -> str:
    section = system.find("OperatingSystemSection")
    return attribute(section, "", "osType") or text_of(section, "OSType") or text_of(section, "Description")


def _property(draft: Draft, one: Element) -> None:
    key, value = one.get("key"), one.get("value")
    shown = HIDDEN if value and (one.get("password") == "true" or hidden(key, value) == HIDDEN) else value
    rest = " ".join(f"{name}={said}" for name, said in one.attrib.items() if name not in ("key", "value"))
    reason = "properties reach the guest through VMware's tools alone"
    draft.lost("Property", f"{key} {shown} {rest}".strip(), reason, "give them as cloud-init: [seed]")


def _hardware(draft: Draft, root: Element, system: Element, *, windows: bool) -> None:
    hardware = system.find("VirtualHardwareSection")
    items = _chosen(draft, root, [one for one in (hardware if hardware is not None else ()) if one.tag.endswith("Item")])
    controllers = {
        _id(one): text_of(one, "ResourceSubType") or _CONTROLLERS[text_of(one, "ResourceType")]
        for one in items
        if text_of(one, "ResourceType") in _CONTROLLERS
    }
    sources = _sources(root)
    draft.nets = []  # what is not described, it has not
    used = {one.get("fileRef") for one in children(root, "DiskSection/Disk")}
    used |= {text_of(one, "HostResource").rpartition("/")[2] for one in items}
    for one in children(root, "References/File"):
        if one.get("id") not in used:
            draft.check("File", one.shown(), "no disk of the machine is made of it", "see what it is for")
    for one in children(root, "DiskSection/Disk"):
        draft.done("Disk", one.shown(), "what is in a disk is told by its content")
    for item in items:
        item.seen = True
        _item(draft, item, sources, controllers, windows=windows)


def _item(
    draft: Draft, item: Element, sources: dict[str, tuple[str, str]], controllers: dict[str, str], *, windows: bool
) -> None:
    kind, name = text_of(item, "ResourceType"), text_of(item, "ElementName") or text_of(item, "Caption") or "Item"
    controller = controllers.get(text_of(item, "Parent"), "")
    if kind in (_DISK, *_DISCS):
        _disk(draft, item, name, sources, controller, windows=windows)
        draft.done("Item", item.shown(), "what is in a disk is told by its content")
    elif kind == _NET:
        _net(draft, item, name, windows=windows)
        draft.done("Item", item.shown(), "the network it was on, and the card's kind")
    elif kind in (_CPU, _MEMORY):
        _amount(draft, item, name, kind)
        draft.done("Item", item.shown(), "how many CPUs, and how much memory")
    elif kind in _LOST:
        draft.lost("Item", item.shown(), f"{_LOST[kind]} is not there")
    elif kind == _SERIAL and any(one.reason == _CONSOLE for one in draft.notes):
        foreign.serial(draft, "Item", item.shown(), text_of(item, "HostResource"))
    elif kind == _SERIAL and text_of(item, "HostResource"):
        draft.lost("Item", item.shown(), "what the serial port led to is not there", "tinamou console, tinamou logs")
    elif kind == _SERIAL:
        draft.done("Item", item.shown(), _CONSOLE)
    elif kind == _OTHER and "passthrough" in text_of(item, "ResourceSubType").lower():
        draft.lost("Item", item.shown(), "a device of the other host is not given to the machine", "set pci = …")
    elif kind == _VIDEO:
        if any(one.get("key") == "enable3DSupport" and one.get("value") == "true" for one in item.findall("Config")):
            foreign.undrawn(draft, "Item", "enable3DSupport")
        foreign.screen(draft, "Item", item.shown())
    elif kind in _CONTROLLERS or kind in _THERE:
        draft.done("Item", item.shown(), f"{_THERE.get(kind, 'a controller')} is there where the machine needs one")
    else:
        draft.check("Item", item.shown(), "what this device is, is not known here", "see whether the guest needs it")


def _id(item: Element) -> str:
    return text_of(item, "InstanceID") or text_of(item, "InstanceId")


def _chosen(draft: Draft, root: Element, items: list[Element]) -> list[Element]:
    """The items of the size that is the default one: theirs stand in place of those of the same id that are of any size.

    Source: DSP0243, *DeploymentOptionSection*, and *Virtual hardware description*, ``ovf:configuration``.
    """
    sizes = list(children(root, "DeploymentOptionSection/Configuration"))
    given = [one for one in sizes if one.get("default") in ("true", "1")] or sizes[:1]
    name = given[0].get("id") if given else ""
    if sizes:
        shown = "; ".join(one.shown() for one in sizes)
        fix = "keep the items of another size in the description, or set cpus and memory"
        draft.check("DeploymentOptionSection", shown, f"the machine has the size {name}, which is the default one", fix)
    found: dict[str, Element] = {}
    for one in items:
        wanted = one.get("configuration").split()
        if wanted and name not in wanted:
            draft.changed("Item", one.shown(), f"it belongs to the sizes {', '.join(wanted)}")
        elif (key := _id(one) or f"#{len(found)}") not in found or wanted:
            if key in found:
                draft.changed("Item", found[key].shown(), f"the size {name} has another")
            found[key] = one
        else:
            draft.changed("Item", one.shown(), f"the size {name} has another")
    return list(found.values())


def _amount(draft: Draft, item: Element, name: str, kind: str) -> None:
    number = whole(text_of(item, "VirtualQuantity")) or 0
    if kind == _MEMORY:
        draft.put("memory.size", str(_bytes(number, text_of(item, "AllocationUnits") or "byte * 2^20")))
        return
    sockets, each = whole(text_of(item, "num_of_sockets")) or 0, whole(text_of(item, "cpu_per_socket")) or 0
    threads = whole(text_of(item, "threads_per_cpu")) or 1
    if sockets and each:
        foreign.topology(draft, name, sockets * each * threads, each * threads)
    else:
        foreign.topology(draft, name, number, whole(text_of(item, "CoresPerSocket")) or 0)
    for tag, reason in (("Limit", "set limits.cpu"), ("Reservation", "CPUs are not set aside: cpu.pin")):
        if value := text_of(item, tag):
            draft.changed("Item", f"{tag} {value}", "a share of the host is not set here", reason)


def _bytes(number: int, units: str) -> Size:
    match = _UNITS.search(units)
    if match and len(match[1]) < 3:
        return Size(number << int(match[1]))
    return size(f"{number}{units[:1] if units.lower() != 'byte' else ''}", unit="B") or Size(number)


def _sources(root: Element) -> dict[str, tuple[str, str]]:
    """What a device names (``disk/vmdisk1``, ``file/file2``) → a file, the size of an empty disk."""
    files = {}
    for one in children(root, "References/File"):
        name = _beside(one.get("href"))
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
    draft: Draft, item: Element, name: str, sources: dict[str, tuple[str, str]], controller: str, *, windows: bool
) -> None:
    named = text_of(item, "HostResource").removeprefix("ovf:").lstrip("/")
    cdrom = text_of(item, "ResourceType") != _DISK
    if not named and cdrom:
        foreign.empty_drive(draft, name, item.shown())
        return
    found = sources.get(named) or sources.get(f"file/{named}") or sources.get(f"disk/{named}")
    if found is None:
        draft.lost(name, item.shown(), "the description does not say what is on it", "add [[disk]]")
        return
    file, amount = found
    foreign.attach(draft, Disk(name, file, "" if file else amount, cdrom=cdrom), controller, windows=windows)


def _net(draft: Draft, item: Element, name: str, *, windows: bool) -> None:
    if text_of(item, "AutomaticAllocation").lower() == "false":
        foreign.uncabled(draft, name, item.shown())
        return
    network = text_of(item, "Connection")
    kind = "nat" if "nat" in network.lower() or not network else "bridged"
    mac = text_of(item, "Address") or text_of(item, "MACAddress")
    models = text_of(item, "ResourceSubType").split()
    model = "virtio" if "virtio" in map(str.lower, models) or models == [_VIRTIO] else next(iter(models), "")
    foreign.connect(draft, name, kind, network, model, mac, windows=windows)


def _firmware(draft: Draft, system: Element) -> None:
    hardware = system.find("VirtualHardwareSection")
    settings = {one.get("key"): one.get("value") for one in children(hardware, "Config")}
    extra = {one.get("key"): one.get("value") for one in children(hardware, "ExtraConfig")}
    settings |= extra
    kind = settings.pop("firmware", "") or attribute(system, "Machine/Hardware/Firmware", "type")
    secure = any(
        settings.pop(key, "").lower() == "true" for key in ("bootOptions.efiSecureBootEnabled", "uefi.secureBoot.enabled")
    )
    if kind.lower().startswith("efi"):
        foreign.uefi(draft, "firmware", secure=secure, files=kind)
    elif kind:
        draft.done("firmware", f"{kind} {'secure' if secure else ''}".strip(), "SeaBIOS is there without being asked for")
    for key, value in settings.items():
        if key.startswith("pciPassthru") or "Passthru" in key:
            draft.lost("Config", f"{key}={value}", "a device of the other host is not given to the machine", "set pci = …")
        elif key in extra or key.startswith("nestedHV"):
            reason = "this setting of VMware's has no counterpart known here"
            draft.check("Config", f"{key}={hidden(key, value)}", reason, "see whether the guest needs it")
        else:
            draft.done("Config", f"{key}={hidden(key, value)}", "a setting of VMware's")
