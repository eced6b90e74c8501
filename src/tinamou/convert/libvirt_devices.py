"""The devices of a libvirt domain beside disks and interfaces: shares, screen, ports, TPM, and those given from the host.

Source: libvirt's documentation, *Domain XML format*, section *Devices*.
"""

from __future__ import annotations

from tinamou.convert import foreign
from tinamou.convert.libvirt_disks import disks
from tinamou.convert.libvirt_nets import interface, pci_address
from tinamou.convert.result import Draft
from tinamou.convert.values import size, whole
from tinamou.convert.xml import Element, attribute
from tinamou.parts.display import MOST_REDIRECTED
from tinamou.units import Size

__all__ = ["read"]

_THERE = {
    "controller": "controllers are there where devices need them",
    "memballoon": "the balloon is there",
    "panic": "a panic of the guest's kernel is told",
    "emulator": "",
    "hub": "",
}
"""Element → why nothing need be done; the rules of libvirt.py say it where it is empty."""
_CONSOLE = "the serial port is the guest's console: tinamou console NAME"
_LOST = {
    "parallel": ("there is no parallel port", ""),
    "redirfilter": ("which devices a viewer may hand over is not filtered", "leave display.redirected_usb out"),
    "iommu": ("the guest has no IOMMU of its own", "keep it with qemu_args"),
    "smartcard": ("there is no smart card", ""),
    "crypto": ("there is no crypto device", ""),
    "lease": ("disks are not leased from a lock manager", "a disk two machines would write to is refused"),
    "nvram": ("there is no such memory on these boards", ""),
}
_ACTIONS = ("reset", "poweroff", "shutdown", "pause", "inject-nmi")
_PORTS = ("pty", "stdio", "null", "vc")


def read(draft: Draft, devices: Element | None, *, windows: bool) -> None:
    """All devices."""
    draft.nets = []
    nodes = list(devices) if devices is not None else []
    if devices is not None:
        devices.seen = True
    disks(draft, [one for one in nodes if one.tag == "disk"], windows=windows)
    serials = 0
    for one in nodes:
        one.seen = True
        serials += one.tag == "serial"
        if one.tag == "interface":
            interface(draft, one, windows=windows)
        elif one.tag == "serial" and serials > 1:
            kind = one.get("type")
            foreign.serial(draft, "serial", one.shown(), "" if kind in (*_PORTS, "unix") else f"a {kind}")
        elif one.tag in _READERS:
            _READERS[one.tag](draft, one)
        elif one.tag in _LOST:
            draft.lost(one.tag, one.shown(), *_LOST[one.tag])
        elif one.tag not in (*_THERE, "disk", "redirdev"):
            draft.lost(one.tag, one.shown(), "it has no counterpart known here", "see docs/reference/spec.md")
    _controllers(draft, [one for one in nodes if one.tag == "controller"])
    _spice(draft, nodes)
    _order(draft)


def _controllers(draft: Draft, nodes: list[Element]) -> None:
    """In one note, for a machine has a dozen; what is set at one beside its kind is left to be reported."""
    keys = ("type", "index", "model", "ports", "vectors")
    shown = [" ".join(f"{key}={value}" for key in keys if (value := one.get(key))) for one in nodes]
    if shown:
        draft.done("controller", "; ".join(shown), _THERE["controller"])


def _spice(draft: Draft, nodes: list[Element]) -> None:
    """What a viewer of SPICE shares with the guest: its clipboard and files, where nothing forbids it, and USB devices."""
    screens = [one for one in nodes if one.tag == "graphics" and one.get("type") == "spice"]
    lines = [one for one in nodes if one.tag == "channel" and one.get("type") == "spicevmc"]
    if screens and lines:
        forbid = (("clipboard", "copypaste"), ("filetransfer", "enable"))
        forbidden = [name for name, key in forbid if (node := screens[0].find(name)) is not None and node.get(key) == "no"]
        if not forbidden:
            draft.put("display.clipboard", True)
        reason = "clipboards and dropped files are shared together, or neither is: display.clipboard"
        if len(forbidden) == 1:
            draft.changed("graphics", f"{forbidden[0]} no", reason, "set display.clipboard = true")
        else:
            draft.done("graphics", f"clipboard {'no' if forbidden else 'yes'}", reason)
    ports = [one for one in nodes if one.tag == "redirdev"]
    taken = [one for one in ports if one.get("type") == "spicevmc" and screens][:MOST_REDIRECTED]
    for one in ports:
        if one in taken:
            draft.done(
                "redirdev", one.shown(), "a USB device of the viewer's can be handed to the guest: display.redirected_usb"
            )
        else:
            draft.lost("redirdev", one.shown(), "only a viewer of SPICE hands devices over, and eight at most", "")
    if taken:
        draft.put("display.redirected_usb", len(taken))


def _serial(draft: Draft, node: Element) -> None:
    kind = node.get("type") or "pty"
    shown = node.shown()
    if kind in _PORTS:
        draft.done(node.tag, shown, _CONSOLE)
    elif node.tag == "console" and "target" in shown and "serial" in shown:
        draft.done(node.tag, shown, "it is the serial port once more")
    else:
        draft.lost(node.tag, shown, f"it was connected to a {kind}; here it is the console", "tinamou console, tinamou logs")


def _channel(draft: Draft, node: Element) -> None:
    name, kind = attribute(node, "target", "name"), node.get("type")
    shown = node.shown()
    if name.startswith("org.qemu.guest_agent"):
        draft.done("channel", shown, "the channel to the guest's agent is there")
    elif kind == "spicevmc":
        draft.done("channel", shown, "a machine with SPICE has the line to its agent")
    else:
        draft.lost("channel", shown, "only the channel to the guest's agent is there", "keep it with qemu_args")


def _sound(draft: Draft, node: Element) -> None:
    """Source: libvirt's documentation, *Sound devices*: ich6 and ich9 are Intel's HDA."""
    kind = node.get("model")
    draft.put("devices.sound", "virtio" if kind == "virtio" else "hda")
    if kind in ("ich6", "ich9", "virtio"):
        draft.done("sound", node.shown(), "the sound card is there; it is heard through the screen's server")
    else:
        reason = "the sound card is Intel's (hda), which every guest of today knows"
        draft.changed("sound", node.shown(), reason, "keep it with qemu_args")


def _watchdog(draft: Draft, node: Element) -> None:
    model, action = node.get("model"), node.get("action") or "reset"
    if model in ("i6300esb", "itco") and action in _ACTIONS:
        draft.put("devices.watchdog", action)
        rank = "done" if model == "i6300esb" else "changed"
        draft.note(rank, "watchdog", node.shown(), "the watchdog is there: devices.watchdog")  # type: ignore[arg-type]
    else:
        draft.lost("watchdog", node.shown(), "no such watchdog is there, or it does not do that", "set devices.watchdog")


def _vsock(draft: Draft, node: Element) -> None:
    number = whole(attribute(node, "cid", "address"))
    if number and 2 < number < 1 << 32:
        draft.put("devices.vsock", number)
        draft.done("vsock", node.shown(), "host and guest speak over AF_VSOCK under this number")
    else:
        draft.lost("vsock", node.shown(), "its number is chosen when the machine is made", "set devices.vsock")


def _shmem(draft: Draft, node: Element) -> None:
    amount, model = node.find("size"), node.find("model")
    if model is not None and model.get("type") == "ivshmem-plain":
        wanted = size(amount.text, unit=amount.get("unit") or "B") if amount is not None else Size.parse("4M")
        foreign.frames(draft, "shmem", node.shown(), wanted)
    else:
        draft.lost("shmem", node.shown(), "no memory is shared with other machines", "keep it with qemu_args")


def _input(draft: Draft, node: Element) -> None:
    kind = node.get("type")
    if kind in ("tablet", "mouse", "keyboard") and node.get("bus") == "usb":
        draft.append("usb", kind)
        draft.done("input", node.shown(), "it is plugged into a USB 3 controller of the machine's own")
    elif kind in ("tablet", "mouse", "keyboard"):
        draft.done("input", node.shown(), "keyboard and tablet are there where a screen is")
    else:
        draft.lost("input", node.shown(), "the host's keyboards and mice are not given to a machine", "use its screen")


def _video(draft: Draft, node: Element) -> None:
    model = node.find("model")
    if model is None:
        return
    if (accel := model.find("acceleration")) is not None and (shown := accel.shown()):
        foreign.undrawn(draft, "video", f"acceleration {shown}")
    if (kind := model.get("type")) == "none":
        draft.done("video", kind, "there is no graphics card unless a display is asked for")
    else:
        draft.done("video", kind, "the display has the card every guest can drive (virtio-vga)")


def _balloon(draft: Draft, node: Element) -> None:
    if node.get("model") == "none":
        draft.put("devices.balloon", False)
    else:
        draft.done("memballoon", node.shown(), _THERE["memballoon"])


def _rng(draft: Draft, node: Element) -> None:
    backend, rate = node.find("backend"), node.find("rate")
    if rate is not None:
        draft.lost("rng", f"rate {rate.shown()}", "random numbers are not dealt out by rate", "")
    if backend is not None and backend.get("model") == "egd":
        draft.lost("rng", f"egd {backend.shown()}", "random numbers come from the host's kernel alone", "")
    draft.done("rng", node.shown(), "random numbers of the host are there")


def _audio(draft: Draft, node: Element) -> None:
    if node.get("type") == "none":
        draft.done("audio", node.shown(), "a sound card is heard through the screen's server")
    else:
        draft.changed("audio", node.shown(), "a sound card is heard through the screen's server")


def _memory(draft: Draft, node: Element) -> None:
    kind = node.get("model")
    path = node.find("source/path") if kind == "virtio-pmem" else None
    if path is not None and path.text:
        foreign.persistent(draft, "memory", f"virtio-pmem {node.shown()}", path.text)
    elif kind in ("nvdimm", "virtio-pmem"):
        fix = "name its file: pmem = [FILE]; what is there by labels or by NVDIMM alone is not found"
        draft.lost("memory", f"{kind} {node.shown()}", "persistent memory is virtio-pmem here, no NVDIMM", fix)
    else:
        fix = "nothing: memory.size holds it, for libvirt's <memory> counts it"
        draft.lost("memory", f"{kind} {node.shown()}", "memory is not plugged in: it is there from the start", fix)


def _filesystem(draft: Draft, node: Element) -> None:
    path, tag = attribute(node, "source", "dir"), attribute(node, "target", "dir")
    if not path or node.get("type") not in ("mount", ""):
        draft.lost(
            "filesystem", node.shown() or tag, "it names no folder of the host", "add [[share]] with that folder as path"
        )
        return
    node.find("driver")
    draft.append("share", {"path": path, **({"readonly": True} if node.find("readonly") is not None else {})})
    reason = f"a virtio-fs share that is mounted by itself, not as {tag!r}"
    draft.changed("filesystem", path, reason, "take the line out of the guest's fstab")


def _graphics(draft: Draft, node: Element) -> None:
    kind = node.get("type") or "vnc"
    if kind == "egl-headless":
        foreign.undrawn(draft, "graphics", node.shown())
        return
    draft.put("display.type", "spice" if kind == "spice" else "vnc")
    below = [one.get("address") for one in node.findall("listen") if one.get("address")]
    own = node.get("listen")
    listen = own or next(iter(below), "127.0.0.1")
    gl = node.find("gl")
    if gl is not None and gl.get("enable") != "no":
        foreign.undrawn(draft, "graphics", f"gl {gl.shown()}")
    secret = node.get("passwd")
    for key in ("passwd", "passwdValidTo"):
        node.get(key)
    open_ = not listen.startswith(("127.", "::1")) and not secret
    wide = f"; {listen} was open to everybody who reaches the host" if open_ else ""
    reason = f"the screen is on a Unix socket of the machine that only its owner can open{wide}"
    if secret:
        reason += "; its password is not needed"
    draft.changed(
        "graphics",
        " ".join([kind, own or listen, *below]),
        reason,
        "leave display out for a guest that is used by its console or ssh",
    )


def _tpm(draft: Draft, node: Element) -> None:
    kind, version = attribute(node, "backend", "type"), attribute(node, "backend", "version")
    if kind == "passthrough":
        reason = "the host's own TPM is not given away"
        draft.lost("tpm", node.shown(), reason, "set tpm = true for one of the machine's own")
        return
    foreign.tpm(draft, "tpm", f"{kind} {version}".strip())
    if version == "1.2":
        draft.changed("tpm", "version=1.2", "the machine's TPM is one of version 2.0", "")


def _hostdev(draft: Draft, node: Element) -> None:
    source, kind = node.find("source"), node.get("type")
    address = source.find("address") if source is not None else None
    if kind == "usb" and source is not None:
        _usb_device(draft, node, source)
        return
    if address is None or kind != "pci":
        reason = f"the host's {kind} devices are not given to a machine"
        draft.lost("hostdev", f"{kind} {node.shown()}", reason, "share what is on it: [[share]]")
        return
    shown, rom = pci_address(address), node.find("rom")
    silent = rom is not None and (rom.get("bar") == "off" or rom.get("enabled") == "no")
    foreign.passed_through(draft, "hostdev", f"pci {shown}", shown, rom=not silent)
    node.find("driver")
    if (boot := node.find("boot")) is not None:
        reason = "firmware tried this device first; here the image is what starts, or the firmware looks for what does"
        draft.check("hostdev", f"boot {boot.shown()} of {shown}", reason, "leave image out; see boot.menu")
    if rom is not None and rom.get("file"):
        draft.lost("hostdev", f"rom file={rom.get('file')}", "the card's own boot code is used", "see pci.rom")
    if rom is not None:
        draft.done("hostdev", f"rom {rom.shown()}", "whether the firmware runs the card's own boot code is pci.rom")


def _usb_device(draft: Draft, node: Element, source: Element) -> None:
    kind = [source.find(name) for name in ("vendor", "product")]
    numbers = [whole(one.get("id")) for one in kind if one is not None]
    named = ":".join(f"{one:04x}" for one in numbers if one is not None and one < 1 << 16)
    foreign.usb_device(draft, "hostdev", f"usb {source.shown()} {node.shown()}".strip(), named)


def _order(draft: Draft) -> None:
    """A disc that libvirt would try before any disk."""
    orders = [disk.order for disk in draft.disks if disk.order is not None and not disk.cdrom]
    for disk in draft.disks:
        if disk.cdrom and disk.order is not None and orders and disk.order > min(orders):
            disk.order = None


_READERS = {
    "audio": _audio,
    "channel": _channel,
    "console": _serial,
    "filesystem": _filesystem,
    "graphics": _graphics,
    "hostdev": _hostdev,
    "input": _input,
    "memballoon": _balloon,
    "memory": _memory,
    "rng": _rng,
    "serial": _serial,
    "sound": _sound,
    "tpm": _tpm,
    "video": _video,
    "shmem": _shmem,
    "vsock": _vsock,
    "watchdog": _watchdog,
}
"""Element → its reader, for those that need none of the guest's system."""
