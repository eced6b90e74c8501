"""Reader of XenServer's and XCP-ng's exported machines (.xva): a tar of a description and of disks in pieces.

::

    ova.xml                         XML-RPC: objects of the classes VM, VBD, VDI, VIF, network, which refer to each other
    Ref:9/00000000                  a piece of 1 MiB of the disk of that reference; what is left out is zeros
    Ref:9/00000000.checksum         its SHA-1 (before XCP-ng 8.1; then .xxhash, which is not checked here)

Source: XenServer's documentation, *XVA*; xapi's object model, the fields of VM, VBD, VDI and VIF.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinamou.convert import foreign, nets
from tinamou.convert.account import Rules, report
from tinamou.convert.box import DAMAGE, opened
from tinamou.convert.result import Disk, Draft
from tinamou.convert.tree import Node, bounded
from tinamou.convert.values import mebibytes, whole
from tinamou.convert.xml import Element, children, documents, text_of
from tinamou.errors import ImageError, SpecError

__all__ = ["is_export", "of_description", "read", "unpack"]

_PIECE, _LARGEST_TEXT, _LARGEST_DISK = 1 << 20, 4 << 20, 1 << 44
_NAME = re.compile(r"(?P<disk>[^/]{1,64})/(?P<number>\d{8,12})(?P<sum>\.checksum|\.xxhash)?")
_RULES: Rules = (
    (r"VM\.(platform|other_config|xenstore_data|blocked_operations|tags|bios_strings|HVM_boot_params)\..*", "changed",
     "how Xen runs the machine is another way here", "docs/reference/spec.md"),
    (r"VM\.(VCPUs_params|actions_after.*|HVM_.*|PV_.*|memory_.*|hardware_platform_version|has_vendor_device|recommendations)(\..*)?",
     "changed", "how Xen runs the machine is another way here", "limits, boot, memory"),
    (r"VM\..* (VBD|VDI|VIF|network|SR|VGPU|VTPM|GPU_group|PIF|host|pool)\[.*", "done", "what Xen notes about it", ""),
    (r"version\..* version", "done", "which Xen wrote it", ""),
)  # fmt: skip


def is_export(path: Path) -> bool:
    """Whether an archive, packed by gzip or not, begins with ova.xml."""
    try:
        with opened(path) as archive:
            first = archive.next()
            return first is not None and first.name == "ova.xml"
    except OSError:
        return False
    except DAMAGE:
        return False


def read(path: Path) -> Draft:
    """The machine; its disks are members of the file. Raises SpecError for a description that is damaged."""
    try:
        with opened(path) as archive:
            member = archive.next()
            source = archive.extractfile(member) if member and member.size <= _LARGEST_TEXT else None
            text = source.read().decode("utf-8", "replace") if source else ""
    except DAMAGE as error:
        raise SpecError(f"{path} is a damaged archive", why=str(error)[:200], fix="export it again") from error
    return of_description(text, str(path.resolve()))


def of_description(text: str, file: str) -> Draft:
    """The machine of an ova.xml, whose disks lie in pieces in ``file``."""
    root = Node(bounded(_value(documents(text, "the Xen export")[0]), "the Xen export"))
    found: dict[str, list[tuple[str, Node]]] = {}
    for one in root.at("objects").items():
        kind = one.text_at("class")
        snapshot = one.at("snapshot")
        snapshot.rename(kind if kind == "VM" else f"{kind}[{len(found.get(kind, []))}]")
        found.setdefault(kind, []).append((one.text_at("id"), snapshot))
    machines = [one for _, one in found.get("VM", []) if not one.on("is_a_snapshot")]
    if not machines:
        raise SpecError("there is no machine in it", fix="xe vm-export writes one")
    vm, draft = machines[0], Draft("a Xen export", confined=True)
    foreign.named(draft, "VM.name_label", vm.text_at("name_label"))
    _machine(draft, vm)
    disks = dict(found.get("VDI", []))
    for _, one in sorted(found.get("VBD", []), key=lambda pair: whole(pair[1].text_at("userdevice")) or 0):
        _disk(draft, one, disks, file)
    draft.nets = []
    networks = dict(found.get("network", []))
    for _, one in sorted(found.get("VIF", []), key=lambda pair: whole(pair[1].text_at("device")) or 0):
        _card(draft, one, networks)
    for name in ("VGPU", "VTPM"):
        for reference, _ in found.get(name, []):
            draft.lost(
                name, reference, "a device of the other host is not given to the machine", "set pci = …, or tpm = true"
            )
    for other in machines[1:]:
        draft.lost("VM", other.shown(), "another machine in the same file", "export it on its own")
    left = [pair for pairs in found.values() for _, one in pairs for pair in one.unread()]
    report(draft, iter([*left, *root.at("version").unread()]), _RULES)
    return draft


def _value(node: Element) -> Any:
    """XML-RPC's ``<value>`` as plain data: structs, arrays, and texts."""
    if node.tag == "value":
        inside = list(node)
        return _value(inside[0]) if inside else node.text
    if node.tag == "struct":
        return {text_of(one, "name"): _value(one.find("value") or Element("value", {})) for one in children(node, "member")}
    if node.tag == "array":
        return [_value(one) for one in children(node, "data/value")]
    return {"1": "true", "0": "false"}.get(node.text, node.text) if node.tag == "boolean" else node.text


def _machine(draft: Draft, vm: Node) -> None:
    most = whole(vm.text_at("VCPUs_max")) or 1
    count = whole(vm.text_at("VCPUs_at_startup")) or most
    draft.put("cpu.count", count)
    if count < most:
        draft.put("cpu.max", most)
    if not vm.put(draft, "memory_static_max", "memory.size", mebibytes):
        vm.put(draft, "memory_dynamic_max", "memory.size", mebibytes)
    draft.put("arch", "x86_64")
    if not vm.text_at("HVM_boot_policy"):
        reason = "a guest of the kind pv has Xen's own devices and no boot loader of its own"
        draft.check("VM.PV_bootloader", vm.text_at("PV_bootloader"), reason, "make it one of kind hvm there first")
    if vm.text_at("HVM_boot_params.firmware") == "uefi":
        foreign.uefi(draft, "VM.HVM_boot_params.firmware", secure=vm.on("platform.secureboot"))
    if vm.at("platform.vtpm") and vm.on("platform.vtpm"):
        foreign.tpm(draft, "VM.platform.vtpm", "true")
    draft.put("display.type", "vnc")
    reason = "Xen's emulated disks and cards become virtio: a Windows needs its drivers before it is moved, or its os told"
    draft.check("VM.HVM_boot_policy", vm.text_at("HVM_boot_policy"), reason, 'set os = "windows-11" if it is one')


def _disk(draft: Draft, one: Node, disks: dict[str, Node], file: str) -> None:
    reference = one.text_at("VDI")
    where, known = f"VBD {one.text_at('userdevice')}", disks.get(reference)
    kind, mode = one.text_at("type"), one.text_at("mode")
    if kind == "CD" or one.on("empty") or known is None:
        foreign.empty_drive(draft, where, f"{kind} {mode} {reference}")
        return
    size = whole(known.text_at("virtual_size")) or 0
    if not 0 < size <= _LARGEST_DISK:
        draft.lost(where, known.shown(), "a disk without a size", "add [[disk]]")
        return
    disk = Disk(where, file, order=0 if one.on("bootable") else 1, part=(0, size), member=f"{reference} {size}")
    if mode == "RO":
        disk.options["readonly"] = True
    shown = f"{reference} {known.text_at('name_label')} {size} bytes " + one.shown()
    draft.done(where, shown, "the disk is unpacked from the export")
    foreign.attach(draft, disk, "xen", windows=False)


def _card(draft: Draft, one: Node, networks: dict[str, Node]) -> None:
    network = networks.get(one.text_at("network")) or Node({})
    net, where = draft.net(), f"VIF {one.text_at('device')}"
    shown = " ".join(network.text_at(key) for key in ("name_label", "bridge"))
    reason = "which network it was on, is that host's: here it is on one of its own"
    draft.check(where, f"{one.text_at('network')} {shown}".strip(), reason, "[[net]]")
    if mac := one.text_at("MAC"):
        nets.set_mac(draft, net, where, mac)
    if mtu := whole(one.text_at("MTU")):
        net["mtu"] = mtu if mtu != 1500 else 0


def unpack(path: Path, folder: Path, names: set[str]) -> dict[str, Path]:
    """The disks of some members as sparse raw files. Raises ImageError for one that is damaged, or not there at all."""
    sizes = {name.partition(" ")[0]: int(name.partition(" ")[2]) for name in names}
    files = {reference: folder / f"{number}.raw" for number, reference in enumerate(sorted(sizes))}
    seen: dict[str, int] = dict.fromkeys(sizes, -1)
    for reference, file in files.items():
        with file.open("xb") as new:
            new.truncate(sizes[reference])
    last = ("", b"")
    for reference, number, kind, data in _pieces(path):
        if kind == ".checksum" and last[0] == f"{reference}/{number}":
            if hashlib.sha1(last[1], usedforsecurity=False).hexdigest() != data.decode("ascii", "replace").strip():
                raise _damaged(path, f"piece {number} of {reference} has another checksum")
        elif not kind and reference in sizes:
            if number <= seen[reference] or number * _PIECE + len(data) > sizes[reference]:
                raise _damaged(path, f"piece {number} of {reference} is there twice, or beyond its disk")
            seen[reference], last = number, (f"{reference}/{number}", data)
            if data.strip(b"\0"):
                with files[reference].open("r+b") as disk:
                    disk.seek(number * _PIECE)
                    disk.write(data)
    for reference, number in seen.items():
        if number != -(-sizes[reference] // _PIECE) - 1:
            raise _damaged(path, f"the last piece of {reference} is not in it")
    return {f"{reference} {sizes[reference]}": file for reference, file in files.items()}


def _pieces(path: Path) -> Iterator[tuple[str, int, str, bytes]]:
    try:
        with opened(path) as archive:
            for member in archive:
                match = _NAME.fullmatch(member.name)
                source = archive.extractfile(member) if match and member.size <= _PIECE else None
                if match and source is None:
                    raise _damaged(path, f"{member.name} is no piece of a disk")
                if match and source:
                    yield match["disk"], int(match["number"]), match["sum"] or "", source.read()
    except DAMAGE as error:
        raise _damaged(path, str(error)[:200]) from error


def _damaged(path: Path, why: str) -> ImageError:
    return ImageError(f"{path} is damaged", why=why, fix="export it again")
