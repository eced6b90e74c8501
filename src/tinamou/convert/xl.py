"""Reader of Xen's xl.cfg: assignments of texts, numbers and lists, as Python writes them; nothing of it is run.

Source: xl.cfg(5), xl-disk-configuration(5), xl-network-configuration(5) of Xen 4.17.
"""

from __future__ import annotations

import re

from tinamou.convert import foreign, nets
from tinamou.convert.account import HIDDEN, Keys, Rules, hidden, report
from tinamou.convert.result import Disk, Draft
from tinamou.convert.values import cpu_set, size, switch, whole
from tinamou.errors import SpecError

__all__ = ["read"]

_MOST = 1 << 18
_START = re.compile(r"([A-Za-z_]\w*)\s*=\s*(.*)", re.DOTALL)
_WORD = re.compile(
    r"""\s*(?:\#[^\n]*\s*)*(?:
    (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<number>[-+]?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?)(?![\w.])|(?:True|False)\b)
    |(?P<mark>[][,]))""",
    re.VERBOSE,
)
_SHAPE = re.compile(r"=|\[(?:=(?:,=)*,?)?\]")
_REST = re.compile(r"\s*(?:#[^\n]*\s*)*")
_ESCAPED = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_POSITIONS = ("target", "format", "vdev", "access")
_XEND = re.compile(r"[^,=]+,\s*(?:ioemu:)?(?:hd|xvd|sd|fd)[a-z]+\d*(?::\w+)?\s*(?:,.*)?")
"""Written as for xm: the format is in front of the target, and the virtual device comes second."""
_RULES: Rules = (
    (r"uuid device_model_.* seclabel.* xen_.* driver_domain bios_path.* claim_mode", "done", "how Xen runs the machine", ""),
    (
        r"on_(poweroff|reboot|crash|watchdog|soft_reset)",
        "changed",
        "a machine that shuts down ends, and one that reboots goes on",
        "qemu_args = ['-no-reboot']",
    ),
    (
        r"(pae|acpi|apic|nx|hap|hpet|acpi_s[34]|viridian|tsc_mode|nomigrate|timer_mode|altp2m|xenpt|shadow_memory|vgamem.*"
        r"|videoram|stdvga|vga|keymap|usb|usbdevice|localtime|pvh|type|builder|serial)",
        "changed",
        "the board has what the machine needs",
        "cpu.hyperv for viridian; usb",
    ),
    (
        r"(cpu_weight|cap|cpus_soft|pool|maxvcpus|maxmem)",
        "lost",
        "what a machine may use is set in [limits]",
        "set limits, cpu.max",
    ),
    (
        r"(vnc.*|sdl.*|spice.*|opengl|nographic)",
        "changed",
        "the screen is on a Unix socket of the machine",
        'display = "vnc"',
    ),
)


def read(text: str) -> Draft:
    """The machine. Raises SpecError for what is no such file."""
    draft = Draft("a Xen machine")
    found = _assigned(draft, text)
    values = Keys({key: " ".join(value) if isinstance(value, list) else value for key, value in found.items()})
    foreign.named(draft, "name", values.get("name"))
    kind = values.get("type") or {"hvm": "hvm", "linux": "pv", "generic": "pv"}.get(values.get("builder"), "pv")
    if kind == "hvm":
        draft.done("type", kind, "every machine has virtual hardware")
    else:
        reason = f"a guest of the kind {kind} has Xen's own devices and no boot loader of its own"
        draft.check("type", kind, reason, "a kernel with drivers for virtio, in boot.kernel or by a loader on its disk")
    _size(draft, values)
    _start(draft, values)
    _devices(draft, values, found)
    if switch(values.get("vnc")) or switch(values.get("spice")) or switch(values.get("sdl")):
        draft.put("display.type", "spice" if switch(values.get("spice")) else "vnc")
    if switch(values.get("localtime")):
        draft.put("clock.base", "localtime")
    report(draft, values.unread(), _RULES)
    return draft


def _size(draft: Draft, values: Keys) -> None:
    if not values.get("memory"):
        draft.changed("memory", "", "Xen's default is used nowhere else: 512M", "set memory")
    elif amount := size(values.get("memory"), unit="M"):
        draft.put("memory.size", str(amount))
    else:
        draft.check("memory", values.get("memory"), "what it means is not known here", "set memory")
    draft.put("cpu.count", whole(values.get("vcpus") or "1") or 1)
    if pinned := values.get("cpus"):
        if cpus := cpu_set(pinned.replace(" ", ",")):
            draft.put("cpu.pin", str(cpus))
        draft.changed("cpus", pinned, "each CPU on one of these", "set cpu.pin")


def _devices(draft: Draft, values: Keys, found: dict[str, str | list[str]]) -> None:
    disks = found.get("disk", [])
    values.read("disk", "vif", "pci")
    for one in disks if isinstance(disks, list) else [disks]:
        _disk(draft, one)
    order = values.get("boot")
    for disk in draft.disks:
        if order.startswith("d") and disk.cdrom:
            disk.order = -1
    if order:
        draft.done("boot", order, "the machine's image is what is started from", "set boot.order")
    draft.nets = []
    for one in _listed(found, "vif"):
        _card(draft, one)
    for one in _listed(found, "pci"):
        address = one.partition(",")[0]
        foreign.passed_through(draft, "pci", one, address if address.count(":") == 2 else f"0000:{address}")


def _listed(found: dict[str, str | list[str]], key: str) -> list[str]:
    value = found.get(key, [])
    return value if isinstance(value, list) else [value]


def _assigned(draft: Draft, text: str) -> dict[str, str | list[str]]:
    """The assignments of a file; a list may go over several lines."""
    if len(text) > _MOST:
        raise SpecError("the Xen machine is too large", why=f"more than {_MOST >> 10} KiB are no machine's")
    found: dict[str, str | list[str]] = {}
    waiting, others = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not waiting and (not line.strip() or line.lstrip().startswith("#")):
            continue
        waiting = f"{waiting}\n{line}" if waiting else line.strip()
        match = _START.fullmatch(waiting)
        if match and match[2].lstrip().startswith("[") and "]" not in match[2]:
            continue
        piece, waiting = waiting, ""
        value = _value(match[2]) if match else None
        if match and value is not None:
            if match[1] in found:
                draft.lost(match[1], hidden(match[1], str(found[match[1]])), "set a second time: the later holds")
            found[match[1]] = value
        else:
            key, others = match[1] if match else "", others + 1
            draft.lost(
                f"line {number}", hidden(key, piece[:200]), "it is no setting, and nothing is run here", "write it out"
            )
    if others > len(found):
        why = f"{others} of its lines are no setting, {len(found)} are"
        raise SpecError("this is a text about Xen's machines, not one of them", why=why, fix="name the .cfg itself")
    if waiting:
        raise SpecError("the Xen machine ends within a list", fix="close it")
    return found


def _value(text: str) -> str | list[str] | None:
    """A text, a number or a list of them; None for what is none. Python's own reader would print warnings about it."""
    words: list[str] = []
    at, depth = 0, 0
    while match := _WORD.match(text, at):
        at = match.end()
        if match["mark"]:
            depth += {"[": 1, "]": -1}.get(match["mark"], 0)
            words.append(match["mark"])
        else:
            words.append("=" + (_unquoted(match["text"]) if match["text"] else _number(match["number"])))
    shape = "".join(word[0] for word in words)
    if not _REST.fullmatch(text, at) or depth or not _SHAPE.fullmatch(shape):
        return None
    values = [word[1:] for word in words if word[0] == "="]
    return values if shape[0] == "[" else values[0]


def _unquoted(text: str) -> str:
    return _ESCAPED.sub(lambda match: _ESCAPES.get(match[1], match[1]), text[1:-1])


def _number(text: str) -> str:
    plain = text.lstrip("+-")
    try:
        return str(int(text, 8 if re.fullmatch("0[0-7]+", plain) else 0))
    except ValueError:  # a fraction, True; or more digits than Python reads
        return text


def _start(draft: Draft, values: Keys) -> None:
    kernel, initrd, firmware = values.get("kernel"), values.get("ramdisk"), values.get("bios") or values.get("firmware")
    words = " ".join(one for one in (values.get("cmdline"), values.get("extra")) if one)
    if root := values.get("root"):
        words = f"root={root} {words}".strip()
    if "grub" in kernel or kernel.endswith("hvmloader"):
        draft.done("kernel", f"{kernel} {initrd} {words}".strip(), "Xen's own loader is not needed: the disk starts")
    elif kernel:
        for field, value in (("kernel", kernel), ("initrd", initrd), ("cmdline", words)):
            if value:
                draft.put(f"boot.{field}", value)
    elif initrd or words:
        draft.lost(
            "extra", f"{initrd} {words}".strip(), "without a kernel the disk's own loader says what it starts", "boot.kernel"
        )
    if loader := values.get("bootloader"):
        reason = "the disk's own boot loader is started"
        draft.changed(
            "bootloader", f"{loader} {values.get('bootloader_args')}".strip(), reason, "boot.kernel where it has none"
        )
    if firmware in ("ovmf", "uefi"):
        foreign.uefi(draft, "bios", secure=False)
    elif firmware:
        draft.done("bios", firmware, "SeaBIOS is there without being asked for")


def _disk(draft: Draft, text: str) -> None:
    """``/dev/vg/a,raw,xvda,rw``, or ``format=qcow2, vdev=hda, target=…`` with all that follows a target in it."""
    free = iter(_POSITIONS if not _XEND.fullmatch(text) else (_POSITIONS[0], *_POSITIONS[2:]))
    found: dict[str, str] = {}
    rest = text
    while rest:
        piece, _, after = rest.partition(",")
        key, equals, value = piece.strip().partition("=")
        if equals and key.strip() == "target":
            found["target"] = rest.partition("=")[2].strip()
            break
        if equals:
            found[key.strip()] = value.strip()
        elif piece.strip() in ("cdrom", "devtype=cdrom", "discard", "no-discard", "direct-io-safe"):
            found["devtype" if piece.strip() == "cdrom" else piece.strip()] = piece.strip()
        else:
            name = next(free, "more")
            found[name] = piece.strip()
        rest = after
    vdev, _, kind_of = found.get("vdev", "").removeprefix("ioemu:").partition(":")
    if vdev:
        found["vdev"] = vdev
    if kind_of == "cdrom":
        found["devtype"] = kind_of
    options = Keys(found)
    file, cdrom = options.get("target"), options.get("devtype") == "cdrom"
    kind, _, bare = file.partition(":")
    form = options.get("format")
    if kind in ("phy", "file", "raw", "tap", "tap2", "aio", "qcow2", "qcow", "vhd", "vmdk") and bare:
        file, form = bare.removeprefix("aio:"), form or (kind if kind.startswith("qcow") else "raw")
    if cdrom and not file:
        foreign.empty_drive(draft, "disk", text)
        return
    file = file if "/" in file else f"/dev/{file}"
    vdev, access = options.get("vdev"), options.get("access") or "rw"
    disk = Disk(f"disk {vdev}", file, format="" if cdrom else {"": "raw", "vhd": "vpc"}.get(form, form), cdrom=cdrom)
    if access in ("r", "ro") and not cdrom:
        disk.options["readonly"] = True
    if "no-discard" in options and options.get("no-discard"):
        disk.options["discard"] = False
    foreign.attach(draft, disk, "virtio", windows=False)
    draft.done(disk.where, f"{text}", "how Xen attaches a disk; Linux names it vda here, xvda there")
    options.read("discard", "direct-io-safe")
    if left := [f"{key}={value}" for key, value in options.unread()]:
        draft.lost(disk.where, ",".join(left), "this setting of a disk has no counterpart known here", "[[disk]]")


def _card(draft: Draft, text: str) -> None:
    options = Keys(
        {key.strip(): value.strip() for key, _, value in (one.partition("=") for one in text.split(",")) if key.strip()}
    )
    net, bridge, mac, model = draft.net(), options.get("bridge"), options.get("mac"), options.get("model")
    if bridge:
        net |= {"type": "bridge", "bridge": bridge}
        draft.check("vif", f"bridge={bridge}", "a bridge of that host", "leave it out, or name one of this host")
    else:
        draft.changed("vif", text, "Xen joins xenbr0; here the card is on a network of its own", "type, bridge")
    if mac:
        nets.set_mac(draft, net, "vif", mac)
    if model:
        nets.card(draft, net, "vif", model)
    if mtu := whole(options.get("mtu")):
        net["mtu"] = mtu
    if left := [f"{key}={HIDDEN if hidden(key, value) == HIDDEN else value}" for key, value in options.unread()]:
        draft.changed("vif", ",".join(left), "how Xen connects the card", "address, rate_out in [[net]]")
