"""A machine as a template of Packer's, for its QEMU plugin: the image is built on, and what comes out is another.

Source: the documentation of packer-plugin-qemu, *QEMU Builder*; HCL's native syntax specification, *Template Expressions*.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tinamou.convert.out.asked import Asked, Place
from tinamou.units import Size

__all__ = ["write"]

_BOARDS = {"x86_64": "q35", "aarch64": "virt", "riscv64": "virt"}
_DISKS = {"auto": "virtio", "sata": "ide", "scsi": "virtio-scsi"}
_CARDS = {"auto": "virtio-net", "virtio": "virtio-net"}


def _written(value: object) -> str:
    """A value of HCL's."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_written(key)} = {_written(one)}" for key, one in value.items()) + " }"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_written(one) for one in value) + "]"
    text = re.sub(r'["\\]', r"\\\g<0>", str(value)).replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return '"' + re.sub(r"([$%])\{", r"\1\1{", text) + '"'


def write(asked: Asked, place: Place) -> str:
    """The template; notes of what Packer has otherwise are added to ``asked``."""
    spec, name = asked.spec, asked.spec.name or "machine"
    asked.take("name", "image", "arch", "accel", "memory.size", "memory.merge", "cpu.count", "cpu.model", "display.type")
    asked.take("devices.rng", "devices.balloon", "devices.panic")
    arch = spec.arch or place.arch
    found: dict[str, object] = {
        **{"vm_name": f"{name}.qcow2", "qemu_binary": f"qemu-system-{arch}", "machine_type": _BOARDS[arch]},
        **{"accelerator": "kvm" if place.kvm else "tcg", "memory": spec.memory.size.mib, "cpus": spec.cpu.count},
        **{"iso_url": place.image, "iso_checksum": "none", "format": "qcow2", "headless": spec.display.type == "none"},
        **{"disk_image": place.format != "iso", "communicator": "none", "output_directory": f"{name}-built"},
    }
    if spec.cpu.model != "auto":
        found["cpu_model"] = spec.cpu.model
    for key in ("sockets", "cores", "threads"):
        if number := getattr(spec.cpu, key):
            found[key] = number
            asked.take(f"cpu.{key}")
    found["boot_wait"] = "10s"
    _firmware(asked, found)
    _disks(asked, found)
    _nets(asked, found)
    arguments = [[spec.qemu_args[at], *spec.qemu_args[at + 1 : at + 2]] for at in range(0, len(spec.qemu_args), 2)]
    if arguments:
        found["qemuargs"] = arguments
        asked.take("qemu_args")
    if data := spec.seed.user_data:
        found |= {"cd_content": {"meta-data": "{}\n", "user-data": data}, "cd_label": "cidata"}
        asked.take("seed.user_data")
    fix = 'communicator = "ssh", ssh_username and shutdown_command, and a provisioner in the build'
    asked.notes.append(
        asked.told("check", "name", name, "how Packer gets in and what it does there is not the machine's", fix)
    )
    asked.windows("which drivers it has is the image's to know")
    width = max(map(len, found))
    lines = [f"  {key:<{width}} = {_written(value)}" for key, value in found.items()]
    plugin = '{ version = ">= 1.1.0", source = "github.com/hashicorp/qemu" }'
    head = ["packer {", "  required_plugins {", f"    qemu = {plugin}", "  }", "}", ""]
    source = [f'source "qemu" {_written(name)} {{', *lines, "}", ""]
    return "\n".join([*head, *source, "build {", f"  sources = [{_written(f'source.qemu.{name}')}]", "}", ""])


def _firmware(asked: Asked, found: dict[str, object]) -> None:
    boot = asked.spec.boot
    if boot.requested == "uefi":
        found["efi_boot"] = True
        if boot.checked:
            fix = "efi_firmware_code and efi_firmware_vars, with Microsoft's keys"
            asked.note("lost", "boot.secure", "true", "the plugin's own choice of firmware has no keys", fix)
    asked.take("boot.firmware", "boot.secure")
    if asked.spec.tpm.enabled:
        found |= {"vtpm": True, "tpm_device_type": "tpm-crb"}
        asked.take("tpm.enabled")


def _disks(asked: Asked, found: dict[str, object]) -> None:
    """Further disks are new ones there: a file that is here is no part of what is built."""
    added = []
    for number, disk in enumerate(asked.spec.disk):
        path = f"disk[{number}]"
        if disk.path:
            reason = "Packer adds empty disks alone"
            asked.note("lost", f"{path}.path", disk.path, reason, "qemuargs")
        else:
            added.append(f"{Size(disk.size or 0).mib}M")
            asked.take(f"{path}.size")
        if disk.interface != "auto":
            found["disk_interface"] = _DISKS.get(disk.interface, disk.interface)
            asked.note("changed", f"{path}.interface", disk.interface, "all disks are on one kind of controller")
    if added:
        found["disk_additional_size"] = added


def _nets(asked: Asked, found: dict[str, object]) -> None:
    """One card: the plugin's own."""
    for number, net in enumerate(asked.spec.net[:1]):
        path = f"net[{number}]"
        found["net_device"] = _CARDS.get(net.model, net.model)
        asked.take(f"{path}.model")
        if net.bridge:
            found["net_bridge"] = net.bridge
            asked.take(f"{path}.bridge", f"{path}.type")
        elif net.type in ("auto", "user", "passt"):
            asked.take(f"{path}.type")
    for number in range(1, len(asked.spec.net)):
        asked.note("lost", f"net[{number}]", asked.spec.net[number].type, "Packer's machine has one card", "qemuargs")
