"""The options of a QEMU command line about firmware, kernel, screen, shares and TPM, and those tinamou has its own way for.

Source: QEMU docs/system/invocation.
"""

from __future__ import annotations

import re

from tinamou.convert import foreign
from tinamou.convert.qemu_cpu import Handler
from tinamou.convert.qemu_line import Line, keys
from tinamou.convert.values import switch, whole
from tinamou.parts.clock import ClockSpec

__all__ = ["HANDLERS", "firmware", "nothing_uses"]

_UEFI = re.compile(r"ovmf|aavmf|edk2|efi", re.IGNORECASE)
_STDIO = ("mon:stdio", "stdio", "none", "null", "pty", "vc", "mon:vc", "")
_ITSELF = {
    "daemonize": "tinamou run --detach leaves the machine running in the background",
    "pidfile": "tinamou knows the process: tinamou show NAME",
    "monitor": "tinamou has QEMU's monitor itself; commands such as tinamou pause, disk and net use it",
    "qmp": "tinamou has QEMU's monitor itself; commands such as tinamou pause, disk and net use it",
    "qmp-pretty": "tinamou has QEMU's monitor itself",
    "mon": "tinamou has QEMU's monitor itself",
    "serial": "the serial port is the guest's console: tinamou console NAME, tinamou logs NAME",
    "nographic": "the serial port is the guest's console, and there is no screen unless one is asked for",
    "nodefaults": "only the devices the machine needs are there, always",
    "no-user-config": "no configuration file of the host changes a machine",
    "sandbox": "QEMU runs confined: no rights, a user id of its own, every system call it does not need refused",
    "runas": "QEMU never runs as root: each machine has a user id of its own",
    "run-with": "QEMU never runs as root: each machine has a user id of its own",
    "chroot": "QEMU is handed its files opened and can open no others",
    "no-shutdown": "a machine that shuts down ends, and stays on the list: tinamou start NAME",
    "D": "what QEMU says is kept: tinamou logs NAME --qemu",
    "enable-fips": "QEMU removed it",
    "usb": "a controller is there where usb names a device",
    "usbdevice": "keyboard and pointer are those of the board, or what usb names",
    "show-cursor": "QEMU opens no window",
    "full-screen": "QEMU opens no window",
    "alt-grab": "QEMU opens no window",
    "ctrl-grab": "QEMU opens no window",
    "no-frame": "QEMU opens no window",
    "no-quit": "QEMU opens no window",
    "k": "the viewer's keyboard decides",
}
_PLAIN_LOST = {
    "S": ("the guest runs from the start", "tinamou pause NAME freezes it"),
    "loadvm": ("internal snapshots of qcow2 hold a machine made of other devices", "shut the guest down, then convert"),
    "incoming": ("a machine made by another command line cannot come in", "shut the guest down there, then convert"),
    "readconfig": ("what the file says is not read", "write it as options, then convert"),
    "writeconfig": ("QEMU removed it", ""),
    "add-fd": ("a descriptor the script had opened before is not there", "name the file itself"),
    "balloon": ("QEMU removed it; the balloon is there", ""),
}


def _itself(line: Line, option: str, text: str) -> None:
    if option == "serial":
        _serial(line, text)
        return
    if option == "nodefaults":
        line.seen.add(option)
    if option == "mon":
        line.take("chardev", keys(text, "chardev").get("chardev", ""))
    if option == "nographic":
        line.seen.add("screen")
    line.draft.done(f"-{option}", text, _ITSELF[option])


def _serial(line: Line, text: str) -> None:
    if "serial" in line.seen and text != "none":
        foreign.serial(line.draft, "-serial", text)
        return
    line.seen.add("serial")
    if text.split(",", maxsplit=1)[0] not in _STDIO:
        name = text.removeprefix("chardev:")
        line.take("chardev", name)
        line.draft.lost("-serial", text, "it led there; here it is the console", "tinamou console NAME, tinamou logs NAME")
        return
    line.draft.done("-serial", text, _ITSELF["serial"])


def _plain_lost(line: Line, option: str, text: str) -> None:
    line.draft.lost(f"-{option}", text, *_PLAIN_LOST[option])


def _name(line: Line, option: str, text: str) -> None:
    found = keys(text, "guest")
    foreign.named(line.draft, "-name", found.pop("guest", ""))
    if found:
        shown = ",".join(f"{key}={value}" for key, value in found.items())
        line.draft.done("-name", shown, "process and threads are named by the machine")


def _kernel(line: Line, option: str, text: str) -> None:
    line.draft.put({"kernel": "boot.kernel", "initrd": "boot.initrd", "append": "boot.cmdline"}[option], text)
    if option == "append" and "console=" in text:
        line.draft.done(
            "-append", text, "the console the architecture has is added where it is missing; doubled ones do no harm"
        )


def _bios(line: Line, option: str, text: str) -> None:
    line.hubs.append(("pflash", text, {"file": text}))


def firmware(line: Line) -> None:
    """BIOS images and flash, once all are known: which firmware was meant, and with Secure Boot or not."""
    found = [(text, one) for kind, text, one in line.hubs if kind == "pflash"]
    found += [_flash(line, name) for kind, name, _ in line.hubs if kind == "flash"]
    names = [one.get("file") or one.get("file.filename") or one.get("filename", "") for _, one in found]
    shown = " ".join(text for text, _ in found)
    if not names or names in (["none"], ["default"]):
        return
    # A pair of flash chips, code and variables, is what UEFI firmware alone has.
    if len(names) < 2 and not _UEFI.search(names[0].rpartition("/")[2]):
        reason = "a firmware file of one's own is not used: SeaBIOS or the distribution's OVMF is"
        line.draft.lost("-bios", shown, reason, 'set firmware = "uefi" if it is one')
        return
    secure = any(foreign.enrolled(name) for name in names)
    line.draft.put("boot.firmware", "uefi")
    if secure:
        line.draft.put("boot.secure", True)
    elif any("secboot" in name.rpartition("/")[2] for name in names) or "secure-flash" in line.seen:
        reason = "whether its variables hold keys is not told by their name; without keys everything starts"
        line.draft.check("firmware", names[-1], reason, "set boot.secure = true if they do")
    line.draft.done("firmware", shown, "the firmware that fits machine and QEMU is found by its description")
    if len(names) > 1:
        reason = "the machine gets variables of its own: boot entries made before are gone, the fallback loader starts"
        line.draft.check(
            "firmware", names[1], reason, "an installed system that has no EFI/BOOT loader needs its entry made anew"
        )


def _flash(line: Line, name: str) -> tuple[str, dict[str, str]]:
    """The node that ``-machine pflash0=`` names, or the file node below it."""
    node = line.take("drive", name)
    below = line.take("drive", node.keys.get("file", "")) if node else None
    return " ".join(one.text for one in (node, below) if one), (below or node).keys if node else {}


def _global(line: Line, option: str, text: str) -> None:
    if "cfi.pflash01" in text and "secure" in text:
        line.seen.add("secure-flash")
    elif "disable_s3" in text:
        line.draft.done("-global", text, "set where Secure Boot needs it")
    else:
        line.pass_on(option, text)


def _boot(line: Line, option: str, text: str) -> None:
    found = keys(text, "order")
    order = found.get("once") or found.get("order", "")
    line.seen.add(f"boot={order}")
    line.draft.done("-boot", text, "the machine's image is what is started from", "set boot.order")
    if switch(found.get("menu", "")):
        line.draft.put("boot.menu", True)
    if "n" in order:
        line.draft.lost("-boot", text, "network cards carry no boot programs", "boot from a disc or a disk")
    for key in sorted(found.keys() - {"once", "order", "menu", "strict"}):
        line.draft.lost("-boot", f"{key}={found[key]}", "the firmware's own is used")


def _screen(line: Line, option: str, text: str) -> None:
    line.seen.add("screen")
    _accelerated(line, option, text)
    if option == "vnc" and text.startswith("none"):
        return
    kind = "spice" if option == "spice" or text.startswith("spice") else "vnc"
    line.draft.put("display.type", kind)
    wide = option == "vnc" and not text.startswith(("127.", "localhost", "unix:")) and "password" not in text
    wide = wide or (option == "spice" and "disable-ticketing" in text and "unix" not in text)
    reason = f"{kind} is on a Unix socket of the machine that only its owner can open"
    if wide:
        reason += "; this let everybody who reaches the host use the guest's screen and keyboard"
    line.draft.changed(
        f"-{option}", text, reason, "from elsewhere, forward the socket by ssh -L; tinamou show NAME names it"
    )


def _accelerated(line: Line, option: str, text: str) -> None:
    if keys(text).get("gl", "off") not in ("off", "no") or text.startswith("egl-headless"):
        foreign.undrawn(line.draft, f"-{option}", text)


def _display(line: Line, option: str, text: str) -> None:
    kind = text.partition(",")[0]
    _accelerated(line, option, text)
    if option in ("sdl", "curses"):
        kind = option
    if kind in ("vnc", "spice-app"):
        _screen(line, "spice" if "spice" in kind else "vnc", text)
        return
    line.seen.add("screen")
    if kind in ("none", "curses", "egl-headless", "dbus"):
        line.draft.done(f"-{option}", text, "QEMU opens no window")
        return
    line.draft.put("display.type", "vnc")
    reason = "QEMU opens no window: a confined process has no access to the desktop; the screen is on a VNC socket"
    line.draft.changed(f"-{option}", text, reason, "leave display out for a guest that is used by its console or ssh")


def _vga(line: Line, option: str, text: str) -> None:
    if text == "none":
        line.seen.add("screen")
        line.draft.done("-vga", text, "there is no graphics card unless a display is asked for")
    else:
        line.draft.done("-vga", text, "the display has the card every guest can drive (virtio-vga)")


def _share(line: Line, option: str, text: str) -> None:
    found = keys(text, "fsdriver")
    if option == "fsdev":
        line.define("fsdev", option, text, found)
    else:
        share(line, "-virtfs", text, found, found.get("mount_tag", ""))


def share(line: Line, where: str, text: str, found: dict[str, str], tag: str) -> None:
    """A folder of the host."""
    if not (path := found.get("path")):
        line.draft.lost(where, text, "it names no folder of the host", "set share = …")
        return
    line.draft.append("share", {"path": path, **({"readonly": True} if switch(found.get("readonly", "")) else {})})
    reason = (
        f"virtio-fs instead of 9p: several times faster, and files keep what 9p loses; mounted by itself, not as {tag!r}"
    )
    line.draft.changed(where, text, reason, "take the 9p line out of the guest's fstab")


def _tpmdev(line: Line, option: str, text: str) -> None:
    found = keys(text, "type")
    if found.get("type") == "passthrough":
        line.draft.lost(
            "-tpmdev", text, "the host's own TPM is not given away", "set tpm = true for one of the machine's own"
        )
        return
    line.take("chardev", found.get("chardev", ""))
    line.seen.add(f"tpm:{found.get('chardev', '')}")
    foreign.tpm(line.draft, "-tpmdev", text)


def _chardev(line: Line, option: str, text: str) -> None:
    line.define("chardev", option, text, keys(text, "backend"))


def _object(line: Line, option: str, text: str) -> None:
    found = keys(text, "qom-type")
    kind = found.get("qom-type", "")
    if kind in ("sev-guest", "sev-snp-guest", "tdx-guest"):
        policy = whole(found["policy"]) if "policy" in found else None
        strength = foreign.sev(line.draft, kind.removesuffix("-guest"), policy)
        foreign.encrypted(line.draft, "-object", text, strength, bit="cbitpos" in found)
        return
    if kind in ("monitor-qmp", "monitor-hmp"):
        line.take("chardev", found.get("chardev", ""))
        line.draft.done("-object", text, _ITSELF["mon"])
        return
    if kind == "secret" and found.get("id", "").startswith("masterKey"):
        line.draft.done("-object", text, "the key libvirt hid the line's other secrets with; none of them is taken over")
        return
    if kind == "rng-egd":
        line.draft.lost("-object", text, "random numbers come from the host's kernel alone", "")
    if kind in ("rng-random", "rng-builtin"):
        line.draft.done("-object", text, "random numbers of the host are there")
        return
    line.define("object", option, text, found)


def _rtc(line: Line, option: str, text: str) -> None:
    if text in ("base=utc", ""):
        line.draft.done("-rtc", text, "the clock is in UTC")
        return
    said = keys(text, "")
    base = said.pop("base", "utc")
    if said.pop("driftfix", "none") not in ("slew", "none") or said or ClockSpec(base).problems():
        line.passed.append((option, text))
        line.draft.check("-rtc", text, "kept in qemu_args", "Windows wants local time; every other guest wants UTC")
        return
    line.draft.put("clock.base", base)
    line.draft.changed("-rtc", text, f"the clock shows {base}; late ticks are made up for in a Windows", "set os")


def _localtime(line: Line, option: str, text: str) -> None:
    line.draft.put("clock.base", "localtime")
    line.draft.done("-localtime", "", "the clock is the host's local time")


def _device_identity(line: Line, option: str, text: str) -> None:
    line.passed.append((option, text))
    line.draft.changed(f"-{option}", text, "kept in qemu_args: what the guest sees of its maker and identity stays")


def _gdb(line: Line, option: str, text: str) -> None:
    if text.startswith("chardev:"):
        line.take("chardev", text.removeprefix("chardev:"))
        line.draft.lost("-gdb", text, "no debugger can be on a character device here", "-gdb unix:PATH in qemu_args")
    else:
        line.pass_on(option, text)


def nothing_uses(line: Line) -> None:
    """Definitions nobody refers to; and what was said of those that somebody does, where no note holds it."""
    if line.draft.get("confidential.type") and "confidential" not in line.seen:
        reason = "no -machine confidential-guest-support= names it: QEMU would not have used it"
        line.draft.check("confidential", "", reason, "leave confidential out, or keep it")
    words = line.draft.get("qemu_args") or []
    said = "\n".join([*(str(one.value) for one in line.draft.notes), *words])
    for one in line.defined.values():
        if one.used and one.text not in said:
            line.draft.done(f"-{one.option}", one.text, "what refers to it says what it was for")
    for (kind, name), one in line.defined.items():
        if one.used or f"tpm:{name}" in line.seen:
            continue
        if kind == "object" and one.keys.get("qom-type") == "iothread":
            line.draft.done("-object", one.text, "a disk asks for a thread of its own: iothread = true")
        elif kind == "object" and one.keys.get("qom-type", "").startswith("input-"):
            reason = "the host's keyboards and mice are not given to a machine"
            line.draft.lost("-object", one.text, reason, "use its screen")
        elif kind == "drive" and one.keys.get("driver") == "file":
            continue
        else:
            reason = f"nothing refers to it: no device has {kind if kind != 'object' else 'it'}={name}"
            line.draft.check(f"-{one.option}", one.text, reason, "see whether the line lacks its -device")


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(_ITSELF, _itself),
    **dict.fromkeys(_PLAIN_LOST, _plain_lost),
    **dict.fromkeys(("kernel", "initrd", "append"), _kernel),
    **dict.fromkeys(("bios", "pflash"), _bios),
    **dict.fromkeys(("vnc", "spice"), _screen),
    **dict.fromkeys(("display", "sdl", "curses"), _display),
    **dict.fromkeys(("virtfs", "fsdev"), _share),
    **dict.fromkeys(("uuid", "fw_cfg"), _device_identity),
    "name": _name,
    "boot": _boot,
    "vga": _vga,
    "global": _global,
    "tpmdev": _tpmdev,
    "chardev": _chardev,
    "object": _object,
    "rtc": _rtc,
    "localtime": _localtime,
    "gdb": _gdb,
}
"""Option → what it does to the draft."""
