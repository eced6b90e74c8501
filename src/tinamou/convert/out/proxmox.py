"""A machine as a Proxmox VE configuration (``/etc/pve/qemu-server/NNN.conf``), its disks in the folder of machine 100 there.

Source: Proxmox VE's qm.conf(5).
"""

from __future__ import annotations

import math
import shlex

from tinamou.convert.out.asked import Asked, Place
from tinamou.parts.disk.spec import DiskSpec
from tinamou.parts.net.spec import NetSpec
from tinamou.parts.windows import clock_base, release
from tinamou.units import CpuSet

__all__ = ["write"]

_STORE, _NUMBER = "local", 100
_SYSTEMS = {"windows-11": "win11", "windows-10": "win10", "windows-server-2019": "win10"}
_KINDS = {"auto": "virtio", "virtio": "virtio", "scsi": "scsi", "sata": "sata", "nvme": "virtio", "cdrom": "ide"}
_MIB = 1 << 20
_BOARDS = {"x86_64": {"machine": "q35"}, "aarch64": {"arch": "aarch64", "machine": "virt"}}


def write(asked: Asked, place: Place) -> str:
    """The lines; notes of what Proxmox has otherwise are added to ``asked``."""
    spec, arch = asked.spec, asked.spec.arch or place.arch
    asked.take("name", "arch", "accel", "image", "memory.size", "cpu.count")
    lines = {"name": spec.name or "machine", "memory": str(spec.memory.size.mib), "agent": "1", **_BOARDS.get(arch, {})}
    if arch not in _BOARDS:
        asked.note("lost", "arch", arch, "Proxmox runs no such machine")
    lines |= _cpu(asked)
    lines["ostype"] = _SYSTEMS.get(spec.os, "win11" if release(spec) else "l26")
    _firmware(asked, place, lines)
    order = _disks(asked, place, lines)
    lines["boot"] = f"order={';'.join(order)}"
    for number, net in enumerate(spec.net):
        if net.type != "none":
            lines[f"net{number}"] = _net(asked, net, f"net[{number}]")
        else:
            asked.take(f"net[{number}].type")
    _devices(asked, lines)
    asked.windows("the board's sleep states are left on: a Windows that sleeps does not come back")
    return "".join(f"{key}: {value}\n" for key, value in lines.items())


def _cpu(asked: Asked) -> dict[str, str]:
    cpu, found = asked.spec.cpu, dict[str, str]()
    sockets = cpu.sockets or 1
    if cpu.threads > 1 or (cpu.cores and sockets * cpu.cores != cpu.count):
        asked.note("changed", "cpu.threads", cpu.threads, "a core there has one thread: as many cores")
        sockets = cpu.sockets if cpu.sockets and cpu.count % cpu.sockets == 0 else 1
    found |= {"sockets": str(sockets), "cores": str(cpu.count // sockets)}
    name, *features = cpu.model.split(",")
    if name not in ("auto", "max"):
        known = [one for one in features if one[:1] in "+-"]
        found["cpu"] = ",".join([name, *([f"flags={';'.join(known)}"] if known else [])])
        features = [one for one in features if one not in known]
    else:
        found["cpu"] = "host"
    asked.take("cpu.model", "cpu.sockets", "cpu.cores", "cpu.threads")
    if features:
        asked.note("lost", "cpu.model", ",".join(features), "Proxmox's flags have no value", "args: -cpu …")
    if cpu.pin not in ("off", "auto"):
        found["affinity"] = str(CpuSet.parse(cpu.pin))
        asked.take("cpu.pin")
    pages = asked.spec.memory.hugepages
    if pages != "off":
        found |= {"hugepages": {"2M": "2", "1G": "1024"}.get(pages, "any"), "numa": "1"}
        asked.take("memory.hugepages")
    if limit := asked.spec.limits.cpu:
        found["cpulimit"] = f"{limit:g}"
        asked.take("limits.cpu")
    return found


def _firmware(asked: Asked, place: Place, lines: dict[str, str]) -> None:
    boot = asked.spec.boot
    if boot.requested == "uefi":
        keys = ",efitype=4m,pre-enrolled-keys=1" if boot.checked else ",efitype=4m"
        lines |= {"bios": "ovmf", "efidisk0": f"{_STORE}:{_NUMBER}/efi.raw{keys}"}
        fix = f"qm set {_NUMBER} --efidisk0 {_STORE}:1{keys} in its place"
        asked.note("check", "boot.firmware", "uefi", "Proxmox makes firmware variables of its own", fix)
    asked.take("boot.firmware", "boot.secure")
    words = [
        f"-{'append' if key == 'cmdline' else key} {shlex.quote(value)}"
        for key, value in place.started(boot).items()
        if value
    ]
    if words:
        lines["args"] = " ".join(words)
    asked.take("boot.kernel", "boot.initrd", "boot.cmdline")
    if asked.spec.tpm.enabled:
        lines["tpmstate0"] = f"{_STORE}:{_NUMBER}/tpm.raw,version=v2.0"
        asked.note(
            "check",
            "tpm.enabled",
            "true",
            "Proxmox makes a new TPM",
            f"qm set {_NUMBER} --tpmstate0 {_STORE}:1,version=v2.0",
        )


def _disks(asked: Asked, place: Place, lines: dict[str, str]) -> list[str]:
    numbers = dict.fromkeys(("virtio", "scsi", "sata", "ide"), 0)
    first, order = asked.first(place, copied=True), list[str]()
    for path, disk in [*([("", first)] if first else []), *((f"disk[{at}]", one) for at, one in enumerate(asked.spec.disk))]:
        kind = _KINDS[disk.interface]
        key = f"{kind}{numbers[kind]}"
        numbers[kind] += 1
        lines[key] = _disk(asked, disk, path)
        order.append(key)
    if numbers["scsi"]:
        lines["scsihw"] = "virtio-scsi-single"
    return order[:1]


def _disk(asked: Asked, disk: DiskSpec, path: str) -> str:
    where = f"{path}.path" if path else "image"
    if not disk.path:
        gib = math.ceil(int(disk.size or 0) / (1 << 30))
        asked.note(
            "changed", f"{path}.size", disk.size, "a new disk there is of whole GiB", f"qm set {_NUMBER} --… makes it"
        )
        place = f"{_STORE}:{gib}"
    elif disk.path.startswith("/dev/"):
        place = disk.path
    else:
        name = disk.path.rpartition("/")[2]
        place = f"{_STORE}:iso/{name}" if disk.interface == "cdrom" else f"{_STORE}:{_NUMBER}/{name}"
        folder = "template/iso" if disk.interface == "cdrom" else f"images/{_NUMBER}"
        asked.note("check", where, disk.path, "Proxmox has its disks in a storage", f"cp {disk.path} /var/lib/vz/{folder}/")
    words = [place]
    if disk.interface == "cdrom":
        words.append("media=cdrom")
    else:
        words.append(f"cache={disk.cache}")
        words += ["discard=on"] if disk.discard else []
        words += ["iothread=1"] if disk.iothread else []
        words += ["ro=1"] if disk.readonly else []
        words += [f"aio={disk.aio}"] if disk.aio != "auto" else []
        words += [f"iops={disk.iops}"] if disk.iops else []
        words += [f"mbps={int(disk.bandwidth) / _MIB:g}"] if disk.bandwidth else []
    if disk.interface == "nvme":
        asked.note("changed", f"{path}.interface", "nvme", "Proxmox emulates no NVMe controller: virtio")
    if any("," in one for one in words[:1]):
        asked.note("lost", where, disk.path, "a comma in a name ends it there", "rename the file")
    taken = ("path", "format", "interface", "cache", "discard", "iothread", "readonly", "aio", "iops", "bandwidth")
    asked.take(*(f"{path}.{key}" for key in taken))
    return ",".join(words)


def _net(asked: Asked, net: NetSpec, path: str) -> str:
    model = "virtio" if net.model == "auto" else net.model
    words = [f"{model}={str(net.mac).upper()}" if net.mac else model]
    bridge = net.bridge
    if net.type in ("bridge", "ovs", "macvtap", "tap") and not bridge:
        bridge = "vmbr0"
        asked.note(
            "check",
            f"{path}.type",
            f"{net.type} {net.network or net.interface}".strip(),
            "on Proxmox's own bridge",
            "bridge=",
        )
    elif net.type not in ("auto", "user", "passt", "bridge", "ovs"):
        asked.note("lost", f"{path}.type", net.type, "Proxmox has no network of that kind: QEMU's own NAT", "args:")
    words += [f"bridge={bridge}"] if bridge else []
    words += [f"tag={net.vlan}"] if net.vlan else []
    words += [f"trunks={';'.join(map(str, net.trunk))}"] if net.trunk else []
    words += [f"mtu={net.mtu}"] if net.mtu else []
    words += [f"queues={net.queues}"] if net.queues else []
    asked.take(
        *(
            f"{path}.{key}"
            for key in ("type", "mac", "model", "bridge", "network", "interface", "vlan", "trunk", "mtu", "queues")
        )
    )
    if net.forward:
        asked.note(
            "lost", f"{path}.forward", ", ".join(net.forward), "Proxmox forwards no ports", "the guest is on a bridge"
        )
    return ",".join(words)


def _devices(asked: Asked, lines: dict[str, str]) -> None:
    spec = asked.spec
    if spec.display.type == "none":
        lines |= {"vga": "serial0", "serial0": "socket"}
    else:
        lines["vga"] = "qxl" if spec.display.type == "spice" else "std"
    if not spec.devices.balloon:
        lines["balloon"] = "0"
    if spec.devices.rng:
        lines["rng0"] = "source=/dev/urandom"
    if (action := spec.devices.watchdog) != "none":
        lines["watchdog"] = f"model=i6300esb,action={action}"
    base = clock_base(spec)[0] if spec.clock.base == "auto" else spec.clock.base
    if base in ("utc", "localtime"):
        if spec.clock.base != "auto":
            lines["localtime"] = "1" if base == "localtime" else "0"
        asked.take("clock.base")
    for number, one in enumerate(spec.pci):
        lines[f"hostpci{number}"] = f"{one.device},pcie=1" + ("" if one.rom else ",rombar=0")
        asked.take(f"pci[{number}].device", f"pci[{number}].rom", f"pci[{number}].alone")
    tablets = [number for number, one in enumerate(spec.usb) if one.type == "tablet"]
    if tablets:
        lines["tablet"] = "1"
        asked.take(*(f"usb[{number}].type" for number in tablets))
    handed = {number: f"host={one.device}" for number, one in enumerate(spec.usb) if one.type == "host"}
    asked.take(*(f"usb[{number}].{field}" for number in handed for field in ("type", "device")))
    for number, value in enumerate([*handed.values(), *["spice"] * spec.display.redirected_usb]):
        lines[f"usb{number}"] = value
    asked.take("display.redirected_usb")
    if spec.qemu_args:
        lines["args"] = " ".join([*([lines["args"]] if "args" in lines else []), shlex.join(spec.qemu_args)])
        asked.take("qemu_args")
    asked.take("display.type", "devices.balloon", "devices.rng", "devices.watchdog")
