"""A machine as an Incus instance (``incus config edit``, or ``incus create … < FILE``).

Source: Incus 6.0's documentation, *Instance options*, *Devices*.
"""

from __future__ import annotations

import shlex
from ipaddress import ip_address
from typing import Any

from tinamou.convert.out.asked import Asked, Place
from tinamou.parts.disk.spec import DiskSpec
from tinamou.parts.net.forwards import forwards_of
from tinamou.parts.net.spec import NetSpec
from tinamou.units import CpuSet

__all__ = ["write"]


def write(asked: Asked, place: Place) -> str:
    """The document in YAML; notes of what Incus has otherwise are added to ``asked``."""
    import yaml

    spec, arch = asked.spec, asked.spec.arch or place.arch
    asked.take("name", "arch", "accel", "image", "memory.size")
    config = {"limits.memory": f"{spec.memory.size.mib}MiB"}
    _cpu(asked, config)
    if spec.memory.hugepages != "off":
        config["limits.memory.hugepages"] = "true"
        asked.note("changed", "memory.hugepages", spec.memory.hugepages, "Incus takes huge pages of the host's default size")
    _firmware(asked, place, config)
    if data := spec.seed.user_data:
        config["cloud-init.user-data"] = data
        asked.take("seed.user_data")
    if spec.qemu_args:
        config["raw.qemu"] = shlex.join(spec.qemu_args)
        asked.take("qemu_args")
    devices: dict[str, dict[str, str]] = {}
    if first := asked.first(place, copied=True):
        devices["root"] = {"type": "disk", "path": "/", "pool": "default"}
        fix = f"incus-migrate, or qemu-img convert {first.path} over the volume"
        asked.note("check", "image", first.path, "the disk is a volume of Incus' own", fix)
    for number, disk in enumerate(spec.disk):
        devices[f"disk{number + 1}"] = _disk(asked, disk, f"disk[{number}]", number + 1)
    for number, net in enumerate(spec.net):
        _net(asked, net, number, devices)
    for number, share in enumerate(spec.share):
        devices[f"share{number}"] = {"type": "disk", "source": share.host, "path": share.guest}
        if share.fixed:
            devices[f"share{number}"]["readonly"] = "true"
        asked.take(f"share[{number}].path", f"share[{number}].to", f"share[{number}].readonly")
    for number, one in enumerate(spec.pci):
        devices[f"pci{number}"] = {"type": "pci", "address": one.device}
        asked.take(f"pci[{number}].device", f"pci[{number}].alone")
    if spec.tpm.enabled:
        devices["tpm"] = {"type": "tpm"}
    _rest(asked)
    found: dict[str, Any] = {"name": spec.name or "machine", "type": "virtual-machine", "architecture": arch}
    return str(yaml.safe_dump(found | {"config": config, "devices": devices}, sort_keys=False, width=200))


def _rest(asked: Asked) -> None:
    asked.take("tpm.enabled", "devices.rng", "devices.balloon")
    if (kind := asked.spec.display.type) != "none":
        asked.note("changed", "display.type", kind, "every machine there has a screen: incus console --type=vga")
    asked.windows("Incus knows a Windows by image.os alone")


def _cpu(asked: Asked, config: dict[str, str]) -> None:
    cpu = asked.spec.cpu
    pinned = CpuSet.parse(cpu.pin) if cpu.pin not in ("off", "auto") else CpuSet()
    if pinned and len(pinned) == cpu.count:
        config["limits.cpu"] = str(pinned) if len(pinned) > 1 else f"{pinned}-{pinned}"
        asked.take("cpu.pin")
    else:
        config["limits.cpu"] = str(cpu.count)
    asked.take("cpu.count")
    if cpu.model in ("host", "max"):
        asked.take("cpu.model")


def _firmware(asked: Asked, place: Place, config: dict[str, str]) -> None:
    boot = asked.spec.boot
    if boot.requested == "uefi":
        config["security.secureboot"] = "true" if boot.checked else "false"
    else:
        config |= {"security.csm": "true", "security.secureboot": "false"}
    asked.take("boot.firmware", "boot.secure")
    for key, value in place.started(boot).items():
        if value:
            asked.note("lost", f"boot.{key}", value, "Incus starts what is on the disk", "raw.qemu: -kernel …")


def _disk(asked: Asked, disk: DiskSpec, path: str, number: int) -> dict[str, str]:
    if not disk.path:
        fix = f"incus storage volume create default disk{number} --type=block size={disk.size}"
        asked.note("check", f"{path}.size", disk.size, "a new disk is a volume of a pool there", fix)
        return {"type": "disk", "pool": "default", "source": f"disk{number}"}
    found = {"type": "disk", "source": disk.path}
    if disk.interface == "nvme":
        found["io.bus"] = "nvme"
    if disk.cache in ("none", "writeback", "unsafe"):
        found["io.cache"] = disk.cache
        asked.take(f"{path}.cache")
    if disk.readonly:
        found["readonly"] = "true"
    if disk.interface in ("scsi", "sata"):
        asked.note("changed", f"{path}.interface", disk.interface, "a disk there is one of virtio-scsi, virtio-blk or NVMe")
    if disk.format not in ("raw", "auto"):
        fix = f"qemu-img convert -O raw {disk.path} …"
        asked.note("check", f"{path}.format", disk.format, "Incus takes a disk as it is, which is raw", fix)
    asked.take(f"{path}.path", f"{path}.readonly", f"{path}.interface", f"{path}.format")
    return found


def _net(asked: Asked, net: NetSpec, number: int, devices: dict[str, dict[str, str]]) -> None:
    path, name = f"net[{number}]", f"eth{number}"
    if net.type == "none":
        asked.take(f"{path}.type")
        return
    found = {"type": "nic", "name": name}
    if net.bridge:
        found |= {"nictype": "bridged", "parent": net.bridge}
    elif net.type == "macvtap":
        found |= {"nictype": "macvlan", "parent": net.interface}
    else:
        found["network"] = "incusbr0"
        if net.type not in ("auto", "user", "passt"):
            asked.note(
                "check", f"{path}.type", f"{net.type} {net.network}".strip(), "on Incus' own network", "incus network ls"
            )
    if net.mac:
        found["hwaddr"] = str(net.mac)
    if net.mtu and "network" in found:
        fix = f"incus network set incusbr0 bridge.mtu={net.mtu}"
        asked.note("lost", f"{path}.mtu", net.mtu, "a card on a network of Incus' own has that of the network", fix)
    elif net.mtu:
        found["mtu"] = str(net.mtu)
    devices[name] = found
    asked.take(*(f"{path}.{key}" for key in ("type", "bridge", "network", "interface", "mac", "mtu")))
    if net.model in ("auto", "virtio"):
        asked.take(f"{path}.model")
    for at, one in enumerate(net.forward):
        _forward(asked, one, number, f"port{number}-{at}", devices)
    asked.take(f"{path}.forward")


def _forward(asked: Asked, text: str, number: int, name: str, devices: dict[str, dict[str, str]]) -> None:
    """A machine's ports are translated by Incus (``nat``): from an address of the host's, to a fixed one of its card."""
    path, ports = f"net[{number}].forward", forwards_of(text)
    kind, address, _, _ = ports[0]
    port, to = (f"{one}-{last}" if one != last else f"{one}" for one, last in zip(ports[0][2:], ports[-1][2:], strict=True))
    known = ip_address(address)
    if known.is_loopback or known.is_unspecified:
        why = "Incus forwards to a machine from one address of the host's that others reach, no loopback and no wildcard"
        fix = f'forward = "{kind}:192.0.2.1:{port}:{to}" names one; ssh -L {port}:localhost:{to} leads there from here'
        asked.note("lost", path, text, why, fix)
        return
    listen, anywhere = (f"[{address}]", "[::]") if known.version == 6 else (address, "0.0.0.0")  # noqa: S104 (of its card)
    devices[name] = {
        "type": "proxy",
        "nat": "true",
        "listen": f"{kind}:{listen}:{port}",
        "connect": f"{kind}:{anywhere}:{to}",
    }
    why = "Incus forwards to a machine whose card has a fixed address, and does not start it without one"
    fix = f"incus config device set {asked.spec.name or 'machine'} eth{number} ipv{known.version}.address=…"
    asked.note("check", path, text, why, fix)
