"""The devices of a libvirt domain: disks, interfaces, shares, screen, TPM, and those given from the host.

Source: libvirt's documentation, *Domain XML format*, section *Devices*.
"""

from __future__ import annotations

from typing import Any

from tinamou.convert import foreign, nets
from tinamou.convert.result import Disk, Draft
from tinamou.convert.values import machine_name, size, whole
from tinamou.convert.xml import Element, children, text_of

__all__ = ["read"]

_THERE = {
    "emulator": "the QEMU in PATH is taken, or the one TINAMOU_QEMU names",
    "controller": "controllers are there where devices need them",
    "serial": "the serial port is the guest's console: tinamou console NAME",
    "console": "the serial port is the guest's console: tinamou console NAME",
    "channel": "the channel to the guest's agent is there",
    "input": "keyboard and tablet are there where a screen is",
    "video": "the display has the card every guest can drive (virtio-vga)",
    "memballoon": "the balloon is there",
    "rng": "random numbers of the host are there",
    "panic": "a panic of the guest's kernel is told",
    "hub": "USB is there where a screen is",
}
_LOST = {
    "sound": ("there is no sound card", ""),
    "audio": ("there is no sound card", ""),
    "parallel": ("there is no parallel port", ""),
    "watchdog": ("there is no watchdog", "a panic is told at once: devices.panic"),
    "redirdev": ("devices are not redirected over SPICE", "share what is on them: [[share]]"),
    "vsock": ("there is no vsock device", "the guest's agent answers over a channel of its own"),
    "iommu": ("the guest has no IOMMU of its own", "keep it with qemu_args"),
    "smartcard": ("there is no smart card", ""),
    "memory": ("memory is not plugged in", "add it to memory.size"),
    "shmem": ("no memory is shared with other machines", ""),
    "crypto": ("there is no crypto device", ""),
    "lease": ("disks are not leased from a lock manager", "a disk two machines would write to is refused"),
}
_DISK = frozenset(
    [
        "driver",
        "source",
        "target",
        "backingStore",
        "boot",
        "readonly",
        "shareable",
        "iotune",
        "encryption",
        "address",
        "alias",
    ]
)
_INTERFACE = frozenset(
    [
        "source",
        "target",
        "model",
        "mac",
        "driver",
        "vlan",
        "mtu",
        "virtualport",
        "portForward",
        "backend",
        "address",
        "alias",
        "bandwidth",
        "filterref",
        "tune",
    ]
)
_CACHES = ("writethrough", "none", "directsync", "unsafe")
_SOURCES = ("file", "dev")


def read(draft: Draft, devices: Element | None, *, windows: bool) -> None:
    """All devices."""
    draft.nets = []
    serials = 0
    for one in devices if devices is not None else ():
        serials += one.tag == "serial"
        if one.tag == "disk":
            _disk(draft, one, windows=windows)
        elif one.tag == "interface":
            _interface(draft, one, windows=windows)
        elif one.tag in _READERS:
            _READERS[one.tag](draft, one)
        elif one.tag == "serial" and serials > 1:
            draft.lost("serial", one.get("type", ""), "one serial port is there, the console", "keep it with qemu_args")
        elif one.tag in _LOST:
            model = one.get("model", "") or one.get("type", "")
            if one.tag == "audio" and model == "none":
                draft.done(one.tag, model, "there is no sound card")
            else:
                draft.lost(one.tag, model, *_LOST[one.tag])
        elif one.tag in _THERE:
            draft.done(one.tag, one.get("type", "") or one.get("model", "") or text_of(one), _THERE[one.tag])
        else:
            draft.lost(one.tag, one.get("type", ""), "it has no counterpart known here", "see docs/reference/spec.md")
    _order(draft)


def _disk(draft: Draft, node: Element, *, windows: bool) -> None:
    target, source = node.find("target"), node.find("source")
    where = f"disk {target.get('dev', '')}" if target is not None else "disk"
    kind, device = node.get("type", "file"), node.get("device", "disk")
    named = next((source.get(key, "") for key in _SOURCES if source is not None and source.get(key)), "")
    if device == "floppy":
        draft.lost(where, named, "there is no floppy drive", "make it a disc or a disk")
    elif source is None or (not named and device == "cdrom"):
        foreign.empty_drive(draft, where, device)
    elif not named:
        shown = " ".join(f"{key}={value}" for key, value in source.attrib.items())
        fix = "virsh vol-path names its file" if kind == "volume" else "copy it: qemu-img convert SOURCE disk.qcow2"
        draft.lost(where, f"{kind} {shown}", f"a disk of type {kind} is not one tinamou reads", fix)
    else:
        driver, bus = node.find("driver"), target.get("bus", "") if target is not None else ""
        disk = Disk(where, named, cdrom=device == "cdrom", format=_format(driver), order=_boot(node))
        disk.options = {} if disk.cdrom else _options(draft, where, node, driver)
        if bus == "scsi" and not disk.cdrom:
            disk.options["interface"] = "scsi"
            bus = "virtio"
        foreign.attach(draft, disk, bus, windows=windows)
        _unread(draft, where, node, _DISK)
        for below in node.iter("backingStore"):
            if (file := below.find("source")) is not None:
                reason = "which files a disk rests on is read from the disk itself, and each is checked"
                draft.done(where, f"backingStore {next(iter(file.attrib.values()), '')}", reason)


def _unread(draft: Draft, where: str, node: Element, known: frozenset[str]) -> None:
    for one in node:
        if one.tag not in known:
            value = text_of(one) or " ".join(f"{key}={value}" for key, value in one.attrib.items())
            draft.lost(where, f"{one.tag} {value}".strip(), "it has no such setting here", "see docs/reference/spec.md")


def _boot(node: Element) -> int | None:
    boot = node.find("boot")
    return whole(boot.get("order", "")) if boot is not None else None


def _format(driver: Element | None) -> str:
    kind = driver.get("type", "") if driver is not None else ""
    return kind if kind in ("qcow2", "raw", "vmdk", "vhdx", "vdi", "vpc") else ""


def _options(draft: Draft, where: str, node: Element, driver: Element | None) -> dict[str, Any]:
    given = dict(driver.attrib) if driver is not None else {}
    options: dict[str, Any] = {}
    if given.get("cache") in _CACHES:
        options["cache"] = given["cache"]
    if io := given.get("io"):
        draft.done(where, f"io={io}", "the fastest way of reading that this host permits is tried and taken")
    if given.get("discard") == "ignore":
        options["discard"] = False
    if given.get("detect_zeroes") in ("on", "unmap"):
        options["detect_zeroes"] = given["detect_zeroes"]
    if given.get("iothread"):
        options["iothread"] = True
    if queues := whole(given.get("queues", "")):
        options["queues"] = queues
    if given.get("error_policy") == "report":
        options["on_full"] = "error"
    if node.find("readonly") is not None:
        options["readonly"] = True
    if node.find("shareable") is not None:
        draft.lost(where, "shareable", "a disk that two machines write to is refused", "readonly = true is shared")
    if iops := whole(text_of(node, "iotune/total_iops_sec")):
        options["iops"] = iops
    if bandwidth := size(text_of(node, "iotune/total_bytes_sec"), unit="B"):
        options["bandwidth"] = str(bandwidth)
    if node.find("encryption") is not None:
        draft.check(
            where, "encryption", "the passphrase is in libvirt's secrets", "write it to a file, and name that: key = …"
        )
    return options


def _interface(draft: Draft, node: Element, *, windows: bool) -> None:
    kind, source, target = node.get("type", ""), node.find("source"), node.find("target")
    where, net = f"interface {kind}", draft.net()
    attributes: dict[str, str] = dict(source.attrib) if source is not None else {}
    if kind == "bridge":
        net |= {"type": "bridge", "bridge": attributes.get("bridge", "")}
        if node.find("virtualport[@type='openvswitch']") is not None:
            net["type"] = "ovs"
    elif kind == "network":
        _network(draft, net, where, attributes.get("network", ""))
    elif kind == "direct":
        net |= {"type": "macvtap", "interface": attributes.get("dev", "")}
    elif kind == "ethernet":
        net["type"] = "tap"
        if name := target.get("dev", "") if target is not None else "":
            net["interface"] = name
    elif kind == "vhostuser":
        net.update(type="vhost-user", socket=attributes.get("path", ""), listen=attributes.get("mode") == "server")
    elif kind != "user":
        draft.lost(
            where, str(attributes or ""), "no network of that kind is here; the card is on an ordinary one", "set type = …"
        )
    _card(draft, net, node, where, windows=windows)
    _unread(draft, where, node, _INTERFACE)
    for forward in children(node, "portForward"):
        for one in children(forward, "range"):
            start = one.get("start", "")
            host = f"{forward.get('proto', 'tcp')}:{forward.get('address', '')}:{start}"
            nets.forward(draft, net, where, f"{host}-:{one.get('to', start)}")


def _network(draft: Draft, net: dict[str, Any], where: str, name: str) -> None:
    if name in ("default", ""):
        net |= {"type": "bridge", "network": "default"}
        reason = (
            "a network of tinamou's with addresses, names and a way out, like libvirt's; other machines of tinamou are on it"
        )
        draft.changed(
            where, name, reason, 'leave type and network out to need no root; bridge = "virbr0" joins libvirt\'s own'
        )
        return
    net |= {"type": "bridge", "network": machine_name(name)[:31] or "default"}
    fix = f"virsh net-info {name} names its bridge: set bridge = … to be on it with machines of libvirt"
    draft.check(where, name, f"what libvirt's network {name} is, only libvirt knows; here it is one of tinamou's", fix)


def _card(draft: Draft, net: dict[str, Any], node: Element, where: str, *, windows: bool) -> None:
    model, mac, driver = node.find("model"), node.find("mac"), node.find("driver")
    nets.card(draft, net, where, model.get("type", "") if model is not None else "rtl8139", windows=windows)
    if mac is not None:
        nets.set_mac(draft, net, where, mac.get("address", ""))
    if driver is not None and (queues := whole(driver.get("queues", ""))):
        net["queues"] = queues
    tag = node.find("vlan/tag")
    if tag is not None and (number := whole(tag.get("id", ""))):
        net["vlan"] = number
    mtu = node.find("mtu")
    if mtu is not None and (number := whole(mtu.get("size", ""))):
        net["mtu"] = number
    for name in ("bandwidth", "filterref", "tune"):
        if node.find(name) is not None:
            draft.lost(where, name, "it is written another way here", "set rate_in, rate_out, allow_in or allow_out")


def _filesystem(draft: Draft, node: Element) -> None:
    source, target = node.find("source"), node.find("target")
    path = source.get("dir", "") if source is not None else ""
    tag = target.get("dir", "") if target is not None else ""
    if not path:
        draft.lost("filesystem", tag, "it names no folder of the host", "add [[share]] with that folder as path")
        return
    draft.append("share", {"path": path, **({"readonly": True} if node.find("readonly") is not None else {})})
    draft.changed(
        "filesystem",
        path,
        f"a virtio-fs share that is mounted by itself, not as {tag!r}",
        "take the line out of the guest's fstab",
    )


def _graphics(draft: Draft, node: Element) -> None:
    kind = node.get("type", "vnc")
    draft.put("display.type", "spice" if kind == "spice" else "vnc")
    listen = node.get("listen", "127.0.0.1")
    wide = (
        ""
        if listen.startswith(("127.", "::1")) or node.get("passwd")
        else f"; {listen} was open to everybody who reaches the host"
    )
    reason = f"the screen is on a Unix socket of the machine that only its owner can open{wide}"
    draft.changed("graphics", kind, reason, "leave display out for a guest that is used by its console or ssh")


def _tpm(draft: Draft, node: Element) -> None:
    backend = node.find("backend")
    kind = backend.get("type", "") if backend is not None else ""
    if kind == "passthrough":
        draft.lost("tpm", kind, "the host's own TPM is not given away", "set tpm = true for one of the machine's own")
        return
    foreign.tpm(draft, "tpm", kind)


def _hostdev(draft: Draft, node: Element) -> None:
    address, kind = node.find("source/address"), node.get("type", "")
    if address is not None and kind == "pci":
        numbers = [whole(address.get(key, "0")) or 0 for key in ("domain", "bus", "slot", "function")]
        shown = "{:04x}:{:02x}:{:02x}.{:x}".format(*numbers)
        foreign.passed_through(draft, "hostdev", f"pci {shown}", shown)
    else:
        draft.lost(
            "hostdev", kind, f"the host's {kind} devices are not given to a machine", "share what is on it: [[share]]"
        )


def _order(draft: Draft) -> None:
    """A disc that libvirt would try before any disk."""
    orders = [disk.order for disk in draft.disks if disk.order is not None and not disk.cdrom]
    for disk in draft.disks:
        if disk.cdrom and disk.order is not None and orders and disk.order > min(orders):
            disk.order = None


_READERS = {"filesystem": _filesystem, "graphics": _graphics, "tpm": _tpm, "hostdev": _hostdev}
"""Element → its reader, for those that need none of the guest's system."""
