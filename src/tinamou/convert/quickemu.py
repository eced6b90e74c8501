"""Reader of quickemu's configuration files: ``key="value"`` lines that its script would source; nothing of them is run.

Source: quickemu's documentation, *Advanced quickemu configuration*.
"""

from __future__ import annotations

import re

from tinamou.convert import foreign
from tinamou.convert.result import Disk, Draft
from tinamou.convert.values import size, switch, whole

__all__ = ["read"]

_LINE = re.compile(r"""^\s*(?:export\s+)?(\w+)=(?:"([^"]*)"|'([^']*)'|\(([^)]*)\)|(\S*))\s*(?:#.*)?$""")
_ITSELF = (
    "gl",
    "display",
    "viewer",
    "width",
    "height",
    "monitor",
    "serial",
    "ssh_port",
    "spice_port",
    "macos_release",
    "keyboard",
)


def read(text: str) -> Draft:
    """The machine."""
    draft = Draft("a quickemu configuration")
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.match(line)
        if match:
            values[match[1]] = next((value for value in match.groups()[1:] if value is not None), "")
        elif line.strip() and not line.lstrip().startswith("#"):
            draft.lost(f"line {number}", line.strip()[:80], "it is no setting, and nothing is run here", "do it by hand")
    guest = values.pop("guest_os", "linux")
    windows = foreign.is_windows(guest)
    if guest not in ("linux",) and not windows:
        draft.check("guest_os", guest, "tinamou does nothing particular for this system", "see whether it starts")
    _size(draft, values)
    _boot(draft, values, guest)
    _disks(draft, values, windows=windows)
    _rest(draft, values)
    return draft


def _size(draft: Draft, values: dict[str, str]) -> None:
    cores, ram = whole(values.pop("cpu_cores", "")), size(values.pop("ram", ""), unit="M")
    if cores:
        draft.put("cpu.count", cores)
    else:
        draft.changed(
            "cpu_cores", "", "quickemu takes a share of the host's CPUs; here it is one unless said", "set cpus = …"
        )
    if ram:
        draft.put("memory.size", str(ram))
    else:
        draft.changed(
            "ram", "", "quickemu takes a share of the host's memory; here it is 512M unless said", "set memory = …"
        )


def _boot(draft: Draft, values: dict[str, str], guest: str) -> None:
    if values.pop("boot", "efi") == "efi":
        foreign.uefi(draft, "boot", secure=switch(values.pop("secureboot", "off")))
    if switch(values.pop("tpm", "on" if guest == "windows" else "off")):
        foreign.tpm(draft, "tpm", "on")


def _disks(draft: Draft, values: dict[str, str], *, windows: bool) -> None:
    if file := values.pop("disk_img", ""):
        amount = size(values.pop("disk_size", "16G"), unit="B")
        foreign.attach(draft, Disk("disk_img", file, str(amount or "16G")), "virtio", windows=windows)
    for key in ("iso", "fixed_iso", "img"):
        if file := values.pop(key, ""):
            draft.disks.append(Disk(key, file, cdrom=True))


def _rest(draft: Draft, values: dict[str, str]) -> None:
    draft.put("display.type", "vnc")
    draft.changed(
        "display", values.get("display", "sdl"), "QEMU opens no window; the screen is on a VNC socket", "leave display out"
    )
    if folder := values.pop("public_dir", ""):
        draft.append("share", {"path": folder})
    net = draft.net()
    for pair in re.findall(r"(?<!\d)(\d{1,5}):(\d{1,5})(?!\d)", values.pop("port_forwards", "")):
        net.setdefault("forward", []).append(f"tcp:127.0.0.1:{pair[0]}:{pair[1]}")
    if words := values.pop("extra_args", ""):
        draft.put("qemu_args", words.split())
        draft.check("extra_args", words, "kept in qemu_args", "see whether the machine needs it; it is not checked")
    for key, value in values.items():
        if key in _ITSELF:
            draft.done(key, value, "tinamou arranges screen, console and ssh itself")
        else:
            draft.lost(key, value, "it has no counterpart known here", "see docs/reference/spec.md")
