"""Reader of quickemu's configuration files: variables that its script would source; nothing of them is run.

Source: quickemu's documentation, *Advanced quickemu configuration*, and its script for what is left out.
"""

from __future__ import annotations

import re

from tinamou.arch import ARCHES
from tinamou.convert import foreign, nets
from tinamou.convert.account import Keys, Rules, report
from tinamou.convert.result import Disk, Draft
from tinamou.convert.shell import settings
from tinamou.convert.values import size, switch, whole

__all__ = ["read"]

_PORTS = re.compile(r"(?<![\d-])(\d{1,5}(?:-\d{1,5})?):(\d{1,5}(?:-\d{1,5})?)(?![\d-])")
_RULES: Rules = (
    (
        "gl display viewer width height monitor(_.*)? serial(_.*)? ssh_port spice_port macos_release keyboard(_layout)?"
        " screen.* mouse fullscreen braille access quickemu_.*",
        "done",
        "tinamou arranges screen, console and ssh itself",
        "",
    ),
    ("sound_card sound_duplex", "lost", "a sound card is not taken over", 'set devices.sound = "hda"'),
    (".*", "lost", "it has no counterpart known here", "see docs/reference/spec.md"),
)


def read(text: str) -> Draft:
    """The machine. Raises SpecError for a quote that is never closed."""
    draft = Draft("a quickemu configuration")
    found, commands = settings(text)
    values = Keys({name: " ".join(words) for name, words in found.items()})
    for command in commands:
        if command.words != ("export",):
            shown = " ".join(command.words)[:80]
            draft.lost(f"line {command.line}", shown, "it is no setting, and nothing is run here", "do it by hand")
    guest = values.pop("guest_os") or "linux"
    windows = foreign.is_windows(guest)
    if guest != "linux" and not windows:
        draft.check("guest_os", guest, "tinamou does nothing particular for this system", "see whether it starts")
    elif windows:
        draft.done("guest_os", guest, "it decides about drivers and the TPM alone")
    _arch(draft, values)
    _size(draft, values)
    _boot(draft, values, guest)
    _disks(draft, values, guest, windows=windows)
    _network(draft, values)
    draft.put("display.type", "vnc")
    reason = "QEMU opens no window; the screen is on a VNC socket"
    draft.changed("display", values.get("display", "sdl"), reason, "leave display out")
    if folder := values.pop("public_dir"):
        draft.append("share", {"path": _home(folder)})
    for device in found.get("usb_devices", []):
        values.read("usb_devices")
        foreign.usb_device(draft, "usb_devices", device, device)
    if words := found.get("extra_args"):
        split = words if len(words) > 1 else [word for one in settings(words[0])[1] for word in one.words]
        values.read("extra_args")
        foreign.passed_on(draft, "extra_args", split, " ".join(words))
    report(draft, values.unread(), _RULES)
    return draft


def _home(path: str) -> str:
    return re.sub(r"^\$(HOME|\{HOME\})(?=/|$)", "~", path)


def _arch(draft: Draft, values: Keys) -> None:
    if (arch := values.pop("arch")) in ARCHES:
        draft.put("arch", arch)
    elif arch:
        draft.lost("arch", arch, "tinamou has no machines of that", f"it has {', '.join(ARCHES)}")


def _size(draft: Draft, values: Keys) -> None:
    cores, ram = values.pop("cpu_cores"), values.pop("ram")
    if count := whole(cores):
        draft.put("cpu.count", count)
    else:
        reason = "quickemu takes a share of the host's CPUs; here it is one unless said"
        draft.changed("cpu_cores", cores, reason, "set cpus = …")
    if amount := size(ram, unit="M"):
        draft.put("memory.size", str(amount))
    else:
        reason = "quickemu takes a share of the host's memory; here it is 512M unless said"
        draft.changed("ram", ram, reason, "set memory = …")


def _boot(draft: Draft, values: Keys, guest: str) -> None:
    kind, secure = values.pop("boot") or "efi", values.pop("secureboot")
    if kind == "efi":
        foreign.uefi(draft, "boot", secure=switch(secure), files=f"secureboot={secure}" if secure else "")
    else:
        draft.done("boot", f"{kind} {secure}".strip(), "SeaBIOS is there without being asked for")
    tpm = values.pop("tpm")
    if switch(tpm or ("on" if guest.startswith("windows") and "server" not in guest else "off")):
        foreign.tpm(draft, "tpm", tpm or "on")
    elif tpm:
        draft.done("tpm", tpm, "there is no TPM unless one is asked for")


def _disks(draft: Draft, values: Keys, guest: str, *, windows: bool) -> None:
    file, amount = values.pop("disk_img"), values.pop("disk_size")
    folder = file.rpartition("/")[0] or "."

    def place(name: str) -> str:
        return _home(re.sub(r"\$(VMDIR|\{VMDIR\})", lambda _: folder, name))

    if file:
        foreign.attach(draft, Disk("disk_img", place(file)), "virtio", windows=windows)
    if amount:
        reason = "the size quickemu would make a new disk of"
        draft.changed(
            "disk_size", amount, reason, f'size = "{amount}" in place of path makes one; a disk is never made unasked'
        )
    if kind := values.pop("disk_format"):
        draft.done("disk_format", kind, "what is in a disk is told by its content")
    if cache := values.pop("preallocation"):
        draft.done("preallocation", cache, "a disk that is there is taken as it is")
    for key in ("iso", "fixed_iso"):
        if name := values.pop(key):
            draft.disks.append(Disk(key, place(name), cdrom=True))
    if name := values.pop("img"):
        draft.disks.append(Disk("img", place(name)))
    if name := values.pop("floppy"):
        draft.lost("floppy", name, "there is no floppy drive", "make it a disc or a disk")
    if guest.startswith("macos"):
        reason = "macOS starts by OpenCore.qcow2 and Apple's SMC device, which quickemu adds"
        draft.lost("guest_os", guest, reason, "see what quickemu --display none … prints as its command line")


def _network(draft: Draft, values: Keys) -> None:
    kind, ports, mac = values.pop("network") or "user", values.pop("port_forwards"), values.pop("macaddr")
    if kind == "none":
        draft.nets = []
        draft.done("network", "none", "net = []")
        if ports or mac:
            draft.done("network", f"{ports} {mac}".strip(), "there is no card")
        return
    net = draft.net()
    if kind == "restrict":
        net["isolated"] = True
    elif kind != "user":
        net |= {"type": "bridge", "bridge": kind}
    pairs = _PORTS.findall(ports)
    for host, to in pairs:
        net.setdefault("forward", []).append(f"tcp:127.0.0.1:{host}:{to}")
    if ports:
        draft.changed(
            "port_forwards", ports[:200], "on 127.0.0.1, and by TCP; quickemu listens everywhere", "set forward = …"
        )
    if mac:
        nets.set_mac(draft, net, "macaddr", mac)
