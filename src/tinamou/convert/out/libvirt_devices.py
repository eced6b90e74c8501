"""The devices of a libvirt domain that is written: disks, interfaces, shares, screen, what is passed on.

Source: libvirt's documentation, *Domain XML format*, section *Devices*.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, SubElement

from tinamou.convert.out.asked import Asked, Place
from tinamou.convert.result import Note, Rank
from tinamou.parts.disk.spec import DiskSpec
from tinamou.parts.frames import size_of
from tinamou.parts.net.spec import NetSpec

__all__ = ["told", "write"]

_PREFIXES = {"virtio": "vd", "scsi": "sd", "sata": "sd", "nvme": "vd", "cdrom": "sd"}
_BUSES = {"virtio": "virtio", "scsi": "scsi", "sata": "sata", "cdrom": "sata", "nvme": "virtio"}
_IMAGES = "/var/lib/libvirt/images/"
"""Where libvirt has its disks, and its walls let QEMU in."""
_WATCHED = ("reset", "poweroff", "shutdown", "pause", "inject-nmi")
_CARDS = {"none": "none", "virtio": "virtio", "qxl": "qxl", "ramfb": "ramfb", "std": "vga"}
_PANICS = {"x86_64": "isa"}
_ADDRESS = re.compile(r"(?:([0-9a-f]{4}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", re.IGNORECASE)
_FORWARD = re.compile(r"(?:(tcp|udp):)?(?:([0-9.]+):)?(\d+):(\d+)")


def told(rank: Rank, where: str, value: object, reason: str, fix: str = "") -> Note:
    """A note on a field that is written."""
    return Note(rank, where, str(value), reason, fix)


def write(asked: Asked, devices: Element, place: Place) -> None:
    """All devices."""
    spec = asked.spec
    letters = {"vd": 0, "sd": 0}
    if first := asked.first(place, _IMAGES):
        _disk(asked, devices, first, "", letters, order=1)
    for number, disk in enumerate(spec.disk):
        _disk(asked, devices, disk, f"disk[{number}]", letters)
    if any(one.interface == "scsi" for one in spec.disk):
        SubElement(devices, "controller", {"type": "scsi", "index": "0", "model": "virtio-scsi"})
    for number, net in enumerate(spec.net):
        if net.type != "none":
            _interface(asked, devices, net, f"net[{number}]")
    for number, share in enumerate(spec.share):
        node = SubElement(devices, "filesystem", {"type": "mount", "accessmode": "passthrough"})
        SubElement(node, "driver", {"type": "virtiofs"})
        SubElement(node, "source", {"dir": share.host})
        SubElement(node, "target", {"dir": f"share{number}"})
        asked.take(f"share[{number}].path")
        if share.fixed:
            SubElement(node, "readonly")
            reason = "an older libvirt has no read-only virtio-fs, and refuses the machine: 9 does"
            asked.note("check", f"share[{number}].readonly", "true", reason, "virsh define tells; 9p has it")
        mount = f"mount -t virtiofs share{number} {share.guest}"
        asked.note("changed", f"share[{number}].to", share.guest, "nothing mounts it in the guest by itself", mount)
    _ports(devices)
    _screen(asked, devices)
    _passed(asked, devices)
    _small(asked, devices, place)


def _disk(asked: Asked, devices: Element, disk: DiskSpec, path: str, letters: dict[str, int], order: int = 0) -> None:
    if not disk.path:
        reason = "an empty disk is not made by libvirt"
        fix = f"qemu-img create -f qcow2 disk.qcow2 {disk.size}, and name that in path"
        asked.note("lost", f"{path}.size", disk.size or "", reason, fix)
        return
    interface = "virtio" if disk.interface == "auto" else disk.interface
    if interface == "nvme":
        reason = "libvirt emulates no NVMe controller"
        asked.note("changed", f"{path}.interface", "nvme", reason, "it is a virtio disk there")
    node = SubElement(devices, "disk", {"type": "block" if disk.path.startswith("/dev/") else "file"})
    node.set("device", "cdrom" if interface == "cdrom" else "disk")
    driver = {"name": "qemu", "type": "raw" if disk.format == "auto" and interface == "cdrom" else disk.format}
    if driver["type"] == "auto":
        driver["type"] = "qcow2" if disk.path.endswith(".qcow2") else "raw"
        reason = f"libvirt is told what a file is: {driver['type']} by its name"
        asked.note("check", f"{path}.format", "auto", reason, "set format")
    if interface != "cdrom":
        driver |= _driver(disk)
        asked.take(
            *(f"{path}.{key}" for key in ("cache", "discard", "detect_zeroes", "iothread", "queues", "on_full", "aio"))
        )
        if disk.iothread:
            asked.note("lost", f"{path}.iothread", True, "a thread of a disk's own is numbered there", "<iothreads>")
    SubElement(node, "driver", driver)
    SubElement(node, "source", {"dev" if disk.path.startswith("/dev/") else "file": disk.path})
    prefix = _PREFIXES[interface]
    SubElement(node, "target", {"dev": prefix + chr(ord("a") + letters[prefix]), "bus": _BUSES[interface]})
    letters[prefix] += 1
    if disk.iops or disk.bandwidth:
        tune = SubElement(node, "iotune")
        for tag, value in (("total_bytes_sec", disk.bandwidth), ("total_iops_sec", disk.iops)):
            if value:
                SubElement(tune, tag).text = str(int(value))
    if disk.readonly or interface == "cdrom":
        SubElement(node, "readonly")
    if order:
        SubElement(node, "boot", {"order": str(order)})
    asked.take(*(f"{path}.{key}" for key in ("path", "format", "interface", "readonly", "iops", "bandwidth")))


def _driver(disk: DiskSpec) -> dict[str, str]:
    driver = {"cache": disk.cache, "discard": "unmap" if disk.discard else "ignore"}
    if disk.detect_zeroes != "off":
        driver["detect_zeroes"] = disk.detect_zeroes
    if disk.queues:
        driver["queues"] = str(disk.queues)
    if disk.on_full == "error":
        driver["error_policy"] = "report"
    return driver


def _interface(asked: Asked, devices: Element, net: NetSpec, path: str) -> None:
    kind = net.type
    node = SubElement(devices, "interface", {"type": "user"})
    asked.take(*(f"{path}.{key}" for key in ("type", "model", "mac")))
    if net.mac:
        SubElement(node, "mac", {"address": str(net.mac)})
    if kind in ("bridge", "ovs"):
        _bridged(asked, node, net, path)
    elif kind == "macvtap":
        node.set("type", "direct")
        SubElement(node, "source", {"dev": net.interface, "mode": "bridge"})
        asked.take(f"{path}.interface")
    elif kind == "tap":
        node.set("type", "ethernet")
        if net.interface:
            SubElement(node, "target", {"dev": net.interface, "managed": "no"})
        asked.take(f"{path}.interface")
    elif kind == "vhost-user":
        node.set("type", "vhostuser")
        SubElement(node, "source", {"type": "unix", "path": net.socket, "mode": "server" if net.listen else "client"})
        asked.take(f"{path}.socket", f"{path}.listen")
    elif kind not in ("auto", "user", "passt"):
        asked.note(
            "lost", f"{path}.type", kind, "libvirt has no network of that kind; it is one of type user", "<interface>"
        )
    SubElement(node, "model", {"type": net.model if net.model != "auto" else "virtio"})
    if net.queues:
        SubElement(node, "driver", {"queues": str(net.queues)})
        asked.take(f"{path}.queues")
    by_passt = node.get("type") == "user" and (kind == "passt" or bool(net.forward))
    if net.mtu and node.get("type") not in ("user", "direct"):
        SubElement(node, "mtu", {"size": str(net.mtu)})
        asked.take(f"{path}.mtu")
    elif net.mtu:
        reason = "on an interface of this kind libvirt refuses it, or takes it (11, with passt) and does not start then"
        asked.note("lost", f"{path}.mtu", net.mtu, reason, "set it in the guest")
    if by_passt:
        _forwarded(asked, node, net, path)
    elif net.forward:
        reason = "libvirt leads ports in by passt alone, on an interface of type user"
        asked.note("lost", f"{path}.forward", ", ".join(net.forward), reason, "a rule of the host's firewall")


def _bridged(asked: Asked, node: Element, net: NetSpec, path: str) -> None:
    if net.bridge:
        node.set("type", "bridge")
        SubElement(node, "source", {"bridge": net.bridge})
        asked.take(f"{path}.bridge")
    else:
        node.set("type", "network")
        name = net.network or "default"
        SubElement(node, "source", {"network": name})
        reason = "a network of that name must be there in libvirt"
        asked.note("check", f"{path}.network", name, reason, f"virsh net-info {name}")
    if net.type == "ovs":
        SubElement(node, "virtualport", {"type": "openvswitch"})
    if net.vlan:
        vlan = SubElement(node, "vlan")
        SubElement(vlan, "tag", {"id": str(net.vlan)})
        asked.take(f"{path}.vlan")


def _forwarded(asked: Asked, node: Element, net: NetSpec, path: str) -> None:
    for one in net.forward:
        if match := _FORWARD.fullmatch(one):
            forward = SubElement(node, "portForward", {"proto": match[1] or "tcp", "address": match[2] or "127.0.0.1"})
            SubElement(forward, "range", {"start": match[3], "to": match[4]})
        else:
            asked.note("lost", f"{path}.forward", one, "it is no port in a form libvirt has", "<portForward>")
    SubElement(node, "backend", {"type": "passt"})
    reason = "ports lead in by passt alone, which a libvirt must be built with: Debian 12's refuses it"
    asked.notes.append(
        told("check", f"{path}.type", "passt", reason, "virsh define tells; without it take <portForward> out")
    )
    asked.take(f"{path}.forward")


def _ports(devices: Element) -> None:
    serial = SubElement(devices, "serial", {"type": "pty"})
    SubElement(serial, "target", {"port": "0"})
    channel = SubElement(devices, "channel", {"type": "unix"})
    SubElement(channel, "target", {"type": "virtio", "name": "org.qemu.guest_agent.0"})


def _screen(asked: Asked, devices: Element) -> None:
    kind, card = asked.spec.display.type, asked.spec.display.card
    asked.take("display.type")
    if card in _CARDS:
        asked.take("display.video")
    if kind == "none":
        video = SubElement(devices, "video")
        SubElement(video, "model", {"type": _CARDS.get(card, "none")})
        return
    graphics = SubElement(devices, "graphics", {"type": kind, "autoport": "yes", "listen": "127.0.0.1"})
    if kind == "spice":
        _spice(asked, devices, graphics)
    video = SubElement(devices, "video")
    SubElement(video, "model", {"type": _CARDS.get(card, "virtio")})
    reason = "the screen is on 127.0.0.1, for every user of the host, and not on a socket of its own"
    asked.notes.append(told("changed", "display.type", kind, reason, "set passwd in <graphics>"))


def _spice(asked: Asked, devices: Element, graphics: Element) -> None:
    shared = "yes" if asked.spec.display.clipboard else "no"
    SubElement(graphics, "clipboard", {"copypaste": shared})
    SubElement(graphics, "filetransfer", {"enable": shared})
    line = SubElement(devices, "channel", {"type": "spicevmc"})
    SubElement(line, "target", {"type": "virtio", "name": "com.redhat.spice.0"})
    for _ in range(asked.spec.display.redirected_usb):
        SubElement(devices, "redirdev", {"bus": "usb", "type": "spicevmc"})
    asked.take("display.clipboard", "display.redirected_usb")


def _passed(asked: Asked, devices: Element) -> None:
    for number, one in enumerate(asked.spec.pci):
        match = _ADDRESS.fullmatch(one.device)
        if match is None:
            reason = "libvirt takes a device by its address"
            asked.note("lost", f"pci[{number}].device", one.device, reason, "lspci -D says it")
            continue
        node = SubElement(devices, "hostdev", {"mode": "subsystem", "type": "pci", "managed": "yes"})
        names = ("domain", "bus", "slot", "function")
        parts = {name: f"0x{value or '0000'}" for name, value in zip(names, match.groups(), strict=True)}
        SubElement(SubElement(node, "source"), "address", parts)
        asked.take(f"pci[{number}].device")
        if not one.rom:
            SubElement(node, "rom", {"bar": "off"})
            asked.take(f"pci[{number}].rom")
        if not one.alone:
            reason = "libvirt gives this function alone: the card's others go by an element of their own each"
            asked.notes.append(told("check", f"pci[{number}].device", one.device, reason))
        asked.take(f"pci[{number}].alone")


def _small(asked: Asked, devices: Element, place: Place) -> None:
    spec = asked.spec
    if spec.tpm.enabled:
        tpm = SubElement(devices, "tpm", {"model": "tpm-crb"})
        SubElement(tpm, "backend", {"type": "emulator", "version": "2.0"})
    asked.take("tpm.enabled")
    SubElement(devices, "memballoon", {"model": "virtio" if spec.devices.balloon else "none"})
    if spec.devices.rng:
        rng = SubElement(devices, "rng", {"model": "virtio"})
        SubElement(rng, "backend", {"model": "random"}).text = "/dev/urandom"
    if spec.devices.panic and (model := _PANICS.get(spec.arch or place.arch)):
        SubElement(devices, "panic", {"model": model})
    asked.take("devices.balloon", "devices.rng", "devices.panic", "devices.sound", "devices.watchdog", "devices.vsock")
    if spec.devices.sound != "none":
        _sound(asked, devices)
    if spec.devices.watchdog in _WATCHED:
        SubElement(devices, "watchdog", {"model": "i6300esb", "action": spec.devices.watchdog})
    elif spec.devices.watchdog != "none":
        asked.note("lost", "devices.watchdog", spec.devices.watchdog, "libvirt's watchdog does not do that", "reset, pause")
    if spec.devices.vsock:
        vsock = SubElement(devices, "vsock", {"model": "virtio"})
        SubElement(vsock, "cid", {"auto": "no", "address": str(spec.devices.vsock)})
    if spec.display.looking_glass:
        shared = SubElement(devices, "shmem", {"name": f"looking-glass-{spec.name or 'guest'}"})
        SubElement(shared, "model", {"type": "ivshmem-plain"})
        SubElement(shared, "size", {"unit": "M"}).text = str(size_of(spec.display.looking_glass).mib)
        asked.take("display.looking_glass")
    for number, one in enumerate(spec.usb):
        if one.type in ("tablet", "mouse", "keyboard"):
            SubElement(devices, "input", {"type": one.type, "bus": "usb"})
            asked.take(f"usb[{number}].type")
        elif one.type == "host" and ":" in one.device:
            node = SubElement(devices, "hostdev", {"mode": "subsystem", "type": "usb"})
            source = SubElement(node, "source")
            for name, number_of in zip(("vendor", "product"), one.device.split(":"), strict=True):
                SubElement(source, name, {"id": f"0x{number_of}"})
            asked.take(f"usb[{number}].type", f"usb[{number}].device")


def _sound(asked: Asked, devices: Element) -> None:
    model = asked.spec.devices.sound
    if model == "virtio":
        reason = "libvirt has this since 10.4, and an older one refuses the machine"
        asked.notes.append(told("check", "devices.sound", model, reason, "ich9 in <sound> without it"))
    SubElement(devices, "sound", {"model": {"hda": "ich9"}.get(model, model)})
