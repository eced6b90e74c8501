"""An export of XenServer's, made of a description and the contents of its disks."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

PIECE = 1 << 20


def _value(one: Any) -> str:
    if isinstance(one, bool):
        return f"<value><boolean>{one:d}</boolean></value>"
    if isinstance(one, dict):
        inside = "".join(f"<member><name>{escape(key)}</name>{_value(value)}</member>" for key, value in one.items())
        return f"<value><struct>{inside}</struct></value>"
    if isinstance(one, list):
        return f"<value><array><data>{''.join(map(_value, one))}</data></array></value>"
    return f"<value>{escape(str(one))}</value>"


def machine(disks: Mapping[str, int], **more: Any) -> dict[str, Any]:
    """A machine with disks of these references and sizes."""
    vm = {
        **{
            "name_label": "Web 1",
            "is_a_snapshot": False,
            "VCPUs_max": "4",
            "VCPUs_at_startup": "2",
            "HVM_boot_policy": "BIOS order",
        },
        **{
            "memory_static_max": str(1 << 30),
            "HVM_boot_params": {"firmware": "uefi", "order": "cdn"},
            "platform": {"vga": "std"},
        },
    }
    objects = [{"class": "VM", "id": "Ref:1", "snapshot": vm | more}]
    for number, (reference, size) in enumerate(disks.items()):
        drive = {
            "VM": "Ref:1",
            "VDI": reference,
            "userdevice": str(number),
            "bootable": number == 0,
            "mode": "RW",
            "type": "Disk",
        }
        objects.append({"class": "VBD", "id": f"Ref:{100 + number}", "snapshot": {**drive, "empty": False}})
        objects.append(
            {"class": "VDI", "id": reference, "snapshot": {"virtual_size": str(size), "name_label": f"disk {number}"}}
        )
    empty = {"VM": "Ref:1", "VDI": "OpaqueRef:NULL", "userdevice": "3", "bootable": False, "mode": "RO", "type": "CD"}
    objects.append({"class": "VBD", "id": "Ref:199", "snapshot": {**empty, "empty": True}})
    card = {"device": "0", "network": "Ref:300", "MAC": "00:16:3e:00:00:01", "MTU": "9000"}
    objects.append({"class": "VIF", "id": "Ref:200", "snapshot": card})
    objects.append({"class": "network", "id": "Ref:300", "snapshot": {"bridge": "xenbr0", "name_label": "Pool-wide"}})
    return {"version": {"hostname": "a", "product_version": "8.2"}, "objects": objects}


def description(found: Mapping[str, Any]) -> str:
    """Its ova.xml."""
    return f"<?xml version='1.0'?>{_value(dict(found))}"


def made(path: Path, found: Mapping[str, Any], disks: Mapping[str, bytes], *, mode: str = "w", wrong: bool = False) -> Path:
    """The archive: pieces that are not zeros, the first and the last of each disk, each with its sum."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]

        def put(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

        put("ova.xml", description(found).encode())
        for reference, content in disks.items():
            count = -(-len(content) // PIECE)
            for number in range(count):
                piece = content[number * PIECE : (number + 1) * PIECE]
                if piece.strip(b"\0") or number in (0, count - 1):
                    put(f"{reference}/{number:08}", piece)
                    put(f"{reference}/{number:08}.checksum", hashlib.sha1(piece + b"x" * wrong).hexdigest().encode())
    return path
