"""A machine as an OVF description, for VMware, VirtualBox and clouds; its disks are streamOptimized VMDK beside it.

Source: DMTF DSP0243 (Open Virtualization Format) 1.1, DSP1041; VMware's settings of firmware in ``vmw:Config``.
"""

from __future__ import annotations

import shlex
from xml.etree.ElementTree import Element, SubElement, indent, register_namespace, tostring

from tinamou.convert.out.asked import Asked, Place
from tinamou.parts.disk.spec import DiskSpec
from tinamou.parts.net.spec import NetSpec
from tinamou.parts.windows import release

__all__ = ["copies", "write"]

_OVF = "http://schemas.dmtf.org/ovf/envelope/1"
_RASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
_VMW = "http://www.vmware.com/schema/ovf"
_VSSD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
_FORMAT = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
_SYSTEMS = {
    "windows-11": "windows11_64Guest",
    "windows-10": "windows9_64Guest",
    "windows-server-2025": "windows2022srvNext_64Guest",
}
_SYSTEMS |= {"windows-server-2022": "windows2019srvNext_64Guest", "windows-server-2019": "windows2019srv_64Guest"}
_ARCHES = ("x86_64",)
_MODELS = {"e1000": "E1000", "e1000e": "E1000e", "vmxnet3": "VmxNet3", "rtl8139": "PCNet32"}


def copies(spec_name: str, place: Place, disks: list[DiskSpec]) -> list[tuple[str, str, str]]:
    """Source, its format, and name beside the description of each disk that has a file, the image first."""
    found = [(place.image, place.format)] if place.image and place.format != "iso" else []
    hard = [disk for disk in disks if disk.path and disk.interface != "cdrom"]
    found += [(disk.path, disk.format if disk.format != "auto" else "") for disk in hard]
    return [(source, kind, f"{spec_name}-disk{number}.vmdk") for number, (source, kind) in enumerate(found)]


def write(asked: Asked, place: Place) -> str:
    """The document; notes of what OVF has otherwise, and the commands that make its disks, are added to ``asked``."""
    spec, name = asked.spec, asked.spec.name or "machine"
    asked.take("name", "accel", "image", "memory.size", "cpu.count", "cpu.sockets", "cpu.cores", "cpu.threads")
    if (spec.arch or place.arch) not in _ARCHES:
        asked.note("lost", "arch", spec.arch or place.arch, "OVF's tools run x86 machines")
    asked.take("arch")
    for prefix, uri in (("", _OVF), ("ovf", _OVF), ("rasd", _RASD), ("vssd", _VSSD), ("vmw", _VMW)):
        register_namespace(prefix or "ovf", uri)
    root = Element(f"{{{_OVF}}}Envelope")
    files = copies(name, place, list(spec.disk))
    references = SubElement(root, f"{{{_OVF}}}References")
    section = _section(root, "DiskSection", "the disks")
    for number, (source, kind, file) in enumerate(files):
        _sub(references, "File", {"href": file, "id": f"file{number}"})
        known = {"capacity": str(place.sizes[source])} if source in place.sizes else {}
        _sub(section, "Disk", {"diskId": f"disk{number}", "fileRef": f"file{number}", "format": _FORMAT, **known})
        words = ["qemu-img", "convert", *(["-f", kind] if kind else []), "-O", "vmdk", "-o", "subformat=streamOptimized"]
        fix = shlex.join([*words, source, file])
        asked.notes.append(asked.told("check", "image" if number == 0 else "disk", file, "to be made before", fix))
    networks = _section(root, "NetworkSection", "the networks")
    system = _sub(root, "VirtualSystem", {"id": name})
    SubElement(system, f"{{{_OVF}}}Info").text = "a virtual machine"
    SubElement(system, f"{{{_OVF}}}Name").text = name
    windows = release(spec) is not None
    attributes = {"id": "103" if windows else "101", f"{{{_VMW}}}osType": _SYSTEMS.get(spec.os, "otherLinux64Guest")}
    guest = _section(system, "OperatingSystemSection", "the system", attributes)
    SubElement(guest, f"{{{_OVF}}}Description").text = spec.os or "Linux"
    hardware = _section(system, "VirtualHardwareSection", "the hardware")
    family = _sub(hardware, "System", {})
    for key, value in (("ElementName", "hardware"), ("InstanceID", "0"), ("VirtualSystemType", "vmx-14")):
        SubElement(family, f"{{{_VSSD}}}{key}").text = value
    _Hardware(asked, hardware, networks, section).write(place, len(files))
    asked.windows("which drivers it has is the other tool's to know")
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _sub(parent: Element, tag: str, attributes: dict[str, str]) -> Element:
    named = {key if "{" in key else f"{{{_OVF}}}{key}": value for key, value in attributes.items()}
    return SubElement(parent, f"{{{_OVF}}}{tag}", named)


def _section(parent: Element, tag: str, info: str, attributes: dict[str, str] | None = None) -> Element:
    node = _sub(parent, tag, attributes or {})
    SubElement(node, f"{{{_OVF}}}Info").text = info
    return node


class _Hardware:
    """The items of the hardware section, numbered as they come."""

    def __init__(self, asked: Asked, node: Element, networks: Element, disks: Element) -> None:
        self._asked, self._node, self._networks, self._disks = asked, node, networks, disks
        self._count = 0

    def _item(self, kind: int, name: str, **more: str) -> str:
        self._count += 1
        found = {"ElementName": name, "InstanceID": str(self._count), "ResourceType": str(kind), **more}
        item = _sub(self._node, "Item", {})
        for key in sorted(found):
            SubElement(item, f"{{{_RASD}}}{key}").text = found[key]
        return str(self._count)

    def write(self, place: Place, count: int) -> None:
        """All of them."""
        spec = self._asked.spec
        each = spec.cpu.count // spec.cpu.sockets if spec.cpu.sockets and spec.cpu.count % spec.cpu.sockets == 0 else 0
        self._item(3, f"{spec.cpu.count} CPUs", AllocationUnits="hertz * 10^6", VirtualQuantity=str(spec.cpu.count))
        if each > 1:
            SubElement(self._node[-1], f"{{{_VMW}}}CoresPerSocket").text = str(each)
        mib = spec.memory.size.mib
        self._item(4, f"{mib} MB of memory", AllocationUnits="byte * 2^20", VirtualQuantity=str(mib))
        self._storage(place, count)
        for number, net in enumerate(spec.net):
            self._card(net, number)
        self._settings()

    def _storage(self, place: Place, count: int) -> None:
        asked = self._asked
        first = asked.first(place, copied=True)
        asked.notes = [one for one in asked.notes if not (one.where == "image" and "-O qcow2" in one.fix)]
        kinds = {"sata": "20", "cdrom": "20"}
        disks = [*([("", first)] if first else []), *((f"disk[{at}]", one) for at, one in enumerate(asked.spec.disk))]
        parents: dict[str, str] = {}
        number = 0
        for place_of, (path, disk) in enumerate(disks):
            kind = kinds.get(disk.interface, "6")
            if kind not in parents:
                model = "AHCI" if kind == "20" else "VirtualSCSI"
                parents[kind] = self._item(int(kind), "controller", ResourceSubType=model, Address="0")
            where = {"Parent": parents[kind], "AddressOnParent": str(place_of)}
            if disk.interface == "cdrom":
                self._item(15, "disc", AutomaticAllocation="false", **where)
                asked.note("lost", f"{path}.path" if path else "image", disk.path, "a disc is put in by hand")
            else:
                name = f"disk{number}" if disk.path else f"new{place_of}"
                if not disk.path:
                    new = {"diskId": name, "capacity": str(int(disk.size or 0)), "format": _FORMAT}
                    _sub(self._disks, "Disk", new)
                number += bool(disk.path)
                self._item(17, f"disk {place_of}", HostResource=f"ovf:/disk/{name}", **where)
            asked.take(*(f"{path}.{key}" for key in ("path", "size", "format", "interface")))

    def _card(self, net: NetSpec, number: int) -> None:
        asked, path = self._asked, f"net[{number}]"
        asked.take(f"{path}.type")
        if net.type == "none":
            return
        name = "NAT" if net.type in ("auto", "user", "passt") else net.bridge or net.network or net.interface or "bridged"
        if all(one.get(f"{{{_OVF}}}name") != name for one in self._networks):
            SubElement(_sub(self._networks, "Network", {"name": name}), f"{{{_OVF}}}Description").text = name
        more = {"Address": str(net.mac)} if net.mac else {}
        model = _MODELS.get(net.model, "VmxNet3")
        if net.model in ("auto", "virtio"):
            asked.notes.append(asked.told("changed", f"{path}.model", net.model, "VMware's card in place of virtio"))
        self._item(10, f"card {number}", Connection=name, ResourceSubType=model, AutomaticAllocation="true", **more)
        if name != "NAT":
            asked.note("check", f"{path}.type", f"{net.type} {name}", "which network that is, is chosen at the import")
        asked.take(*(f"{path}.{key}" for key in ("mac", "model", "bridge", "network", "interface")))

    def _settings(self) -> None:
        asked, boot = self._asked, self._asked.spec.boot
        kinds = {"firmware": "efi" if boot.requested == "uefi" else "bios"}
        if boot.checked:
            kinds["bootOptions.efiSecureBootEnabled"] = "true"
        if asked.spec.display.type != "none":
            self._item(24, "screen")
            asked.take("display.type")
        for key, value in kinds.items():
            setting = {f"{{{_OVF}}}required": "false", f"{{{_VMW}}}key": key, f"{{{_VMW}}}value": value}
            SubElement(self._node, f"{{{_VMW}}}Config", setting)
        asked.take("boot.firmware", "boot.secure", "devices.rng", "devices.balloon")
