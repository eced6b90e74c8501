"""What descriptions of other virtualizers have in common: guests that are Windows, disk controllers, networks, firmware."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tinamou.convert import nets
from tinamou.convert.result import Disk, Draft
from tinamou.convert.values import machine_name
from tinamou.parts.usb import IDS, PORT
from tinamou.parts.windows import RELEASES
from tinamou.units import Size

__all__ = [
    "attach",
    "connect",
    "empty_drive",
    "encrypted",
    "enrolled",
    "folder",
    "identity",
    "is_windows",
    "named",
    "passed_on",
    "passed_through",
    "screen",
    "serial",
    "sev",
    "system",
    "tools_disc",
    "topology",
    "tpm",
    "uefi",
    "uncabled",
    "undrawn",
    "usb_device",
]


def is_windows(guest: str) -> bool:
    """Whether the name of a guest's system is one of Windows (``windows11-64``, ``Windows10_64``, ``winNetEnterprise``)."""
    return bool(re.match(r"(microsoft |.*/)?win", guest.strip().lower()))


_RELEASES = (
    (r"2k25|2025|windows2022srvnext", "windows-server-2025"),
    (r"2k22|2022|windows2019srvnext", "windows-server-2022"),
    (r"2k19|2019", "windows-server-2019"),
    (r"(win/|windows ?|win)11", "windows-11"),
    (r"(win/|windows ?|win)10|windows9-64", "windows-10"),
)
"""What names of systems look like in libosinfo, VMware (whose 9 is Windows 10, and whose next is named after the last),
VirtualBox, OVF; and what they are here.
"""


def system(draft: Draft, where: str, guest: str) -> bool:
    """The system in the guest, where it is one that tinamou knows; whether it is a Windows at all."""
    windows, name = is_windows(guest), guest.strip().lower()
    found = next((release for pattern, release in _RELEASES if re.search(pattern, name)), "") if windows else ""
    if found:
        draft.put("os", found)
        if RELEASES[found].secure:  # what the source does not say, it has not: no UEFI, no Secure Boot, no TPM
            for path, value in (("boot.firmware", "bios"), ("boot.secure", False), ("tpm.enabled", False)):
                draft.put(path, value)
        draft.changed(where, guest, "the machine is made as this Windows needs it", "docs/guides/windows.md says how")
    elif windows:
        reason = "which Windows it is cannot be told from this, and nothing is assumed"
        draft.check(where, guest, reason, 'set os = "windows-10", or another of docs/guides/windows.md')
    return windows


def named(draft: Draft, where: str, given: str) -> None:
    """The machine's name."""
    name = machine_name(given)
    if name:
        draft.put("name", name)
    if name != given:
        draft.changed(where, given, f"a machine's name is its guest's host name too: {name or 'none is left of it'}")


def topology(draft: Draft, where: str, count: int, per_socket: int) -> None:
    """CPUs, and cores of a socket."""
    draft.put("cpu.count", max(1, count))
    if per_socket > 1 and count % per_socket == 0:
        draft.put("cpu.cores", per_socket)
        draft.put("cpu.sockets", count // per_socket)
    elif per_socket > 1:
        draft.changed(where, str(per_socket), f"{per_socket} cores a socket do not make {count} CPUs", "set cpu.cores")


def screen(draft: Draft, where: str, shown: str) -> None:
    """The screen that every machine of such a tool has."""
    draft.put("display.type", "vnc")
    reason = "the screen is on a Unix socket of the machine, with the card every guest can drive (virtio-vga)"
    draft.changed(where, shown, reason, "leave display out for a guest that is used by its console or ssh")


def undrawn(draft: Draft, where: str, shown: str) -> None:
    """A card that draws in three dimensions, which no display here has."""
    draft.lost(where, shown, "the display's card draws nothing by itself", "give the machine a card: pci")


_MORE_PORTS = 3
"""Serial ports beside the console that a board has room for."""


def serial(draft: Draft, where: str, shown: str, led: str = "") -> None:
    """A serial port beside the console; ``led`` is what it led to, where that was anything but a terminal."""
    there = draft.get("devices.serial") or 0
    if there == _MORE_PORTS:
        draft.lost(where, shown, f"a board has {_MORE_PORTS} serial ports beside the console", "keep it with qemu_args")
        return
    draft.put("devices.serial", there + 1)
    reason = f"a serial port beside the console, on a socket of the machine (run/serial{there + 1}.sock)"
    if led:
        draft.lost(where, shown, f"it led to {led}; here it is {reason}", "socat")
    else:
        draft.changed(where, shown, reason)


_MICROSOFT = re.compile(r"(?:^|[._-])ms(?:[._-]|$)", re.IGNORECASE)


def enrolled(path: str) -> bool:
    """Whether the name of a file of firmware variables says that keys are in it: Secure Boot without any lets all start."""
    name = path.rpartition("/")[2]
    return bool(_MICROSOFT.search(name)) or ("secboot" in name.lower() and "code" not in name.lower())


def sev(draft: Draft, kind: str, policy: int | None) -> str:
    """What a guest's policy asks for; bit 2 makes SEV into SEV-ES. Source: QEMU docs/system/i386/amd-memory-encryption."""
    if kind not in ("sev", "sev-snp") or policy is None:
        return kind
    if kind == "sev-snp":
        draft.check("confidential", f"policy={policy:#x}", "the policy is tinamou's own", "see confidential.debug")
        return kind
    if not policy & 1:
        reason = "the policy let the host decrypt the guest; here it does not"
        draft.changed("confidential", f"policy={policy:#x}", reason, "set confidential.debug = true")
    if rest := policy & ~0b101:
        draft.check("confidential", f"policy={policy:#x}", f"the bits {rest:#x} of it are not carried over", "")
    draft.done(
        "confidential", f"policy={policy:#x}", "its registers are encrypted too" if policy & 4 else "as the type says"
    )
    return "sev-es" if policy & 4 else kind


def uefi(draft: Draft, where: str, *, secure: bool, files: str = "") -> None:
    """UEFI firmware, and what the machine's new variables mean; ``files`` are those the source names."""
    draft.put("boot.firmware", "uefi")
    if secure:
        draft.put("boot.secure", True)
    reason = (
        "the machine gets firmware variables of its own: the fallback loader EFI/BOOT starts, entries made before are gone"
    )
    draft.check(
        where,
        "uefi" + (" with Secure Boot" if secure else "") + (f", {files}" if files else ""),
        reason,
        "make the entry anew if the system has no such loader",
    )


def tpm(draft: Draft, where: str, value: str) -> None:
    """A TPM, and what a new one means."""
    draft.put("tpm.enabled", True)
    reason = "the machine gets a new TPM, kept by swtpm: keys sealed to the old one are not in it"
    draft.check(where, value, reason, "have recovery keys at hand (BitLocker, systemd-cryptenroll)")


def _address(device: Any) -> str:
    return str(device["device"]) if isinstance(device, dict) else str(device)


def passed_through(draft: Draft, where: str, value: str, address: str, *, rom: bool = True) -> None:
    """A device of the host that the machine had for itself; the functions of a card are named once."""
    card = address.rpartition(".")[0]
    if not any(_address(known).rpartition(".")[0] == card for known in draft.get("pci") or ()):
        draft.append("pci", address if rom else {"device": address, "rom": False})
    reason = f"{address} is taken from its driver when the machine starts, with all functions of its card, and given back"
    draft.changed(where, value, reason, "tinamou pci ls says whether this host has it, and whether it is free")


def passed_on(draft: Draft, where: str, more: Sequence[str], shown: str) -> None:
    """Words for QEMU itself, behind those there are."""
    draft.put("qemu_args", [*(draft.get("qemu_args") or []), *more])
    draft.check(where, shown, "kept in qemu_args", "see whether the machine needs it; it is not checked")


def usb_device(draft: Draft, where: str, value: str, device: str) -> None:
    """A USB device of the host that the machine had for itself, by its kind or its port: 0951:1666, 1-2.3."""
    if not re.fullmatch(f"{IDS}|{PORT}", device):
        reason = "a device is named by its kind or its port: the number it has changes each time it is plugged in"
        draft.lost(where, value, reason, 'usb = [{ type = "host", device = "VENDOR:PRODUCT" }], as lsusb shows it')
        return
    draft.append("usb", {"type": "host", "device": device.lower()})
    draft.changed(where, value, f"{device} is the guest's while its machine runs", "lsusb says whether this host has it")


def encrypted(draft: Draft, where: str, value: str, kind: str, *, bit: bool) -> None:
    """Memory the host could not read: what that needs is more than the machine's description had."""
    draft.put("confidential.type", kind)
    reason = "the machine starts only where host, firmware and image can do that"
    if bit:
        reason += "; cbitpos differs between processors and is read from CPUID"
    draft.check(where, value, reason, "see docs/guides/encrypted-memory.md; without this field the host can read its memory")


def frames(draft: Draft, where: str, text: str, wanted: Size | None) -> None:
    """Memory that other processes of the host see too (ivshmem): Looking Glass uses it, and each has its own here."""
    if not wanted or wanted < 1 << 20 or wanted & (wanted - 1):
        draft.lost(where, text, "a device's memory is a power of two of MiB", "set display.looking_glass")
        return
    draft.put("display.looking_glass", str(wanted))
    reason = "it is memory for pictures of a graphics card; its file is /dev/shm/looking-glass-NAME"
    draft.changed(
        where, text, reason, "set display.looking_glass_user to who looks; leave it out if it is for something else"
    )


def persistent(draft: Draft, where: str, text: str, path: str, *, readonly: bool = False) -> None:
    """A file that the guest had as memory (virtio-pmem), and wrote to unless it was ``readonly``."""
    draft.append("pmem", {"path": path, **({"readonly": True} if readonly else {})})
    draft.changed(
        where, text, f"all of {path} is the guest's persistent memory, and its length a multiple of 2 MiB", "see pmem"
    )


def folder(draft: Draft, where: str, path: str) -> None:
    """A folder of the host that a description from elsewhere would share."""
    reason = "a folder a description from elsewhere names is not given to the guest unasked"
    draft.lost(where, path, reason, f'share = ["{path}"], if the guest shall see it')


_IDENTITY = ("manufacturer", "product", "version", "serial", "uuid", "sku", "family")


def identity(draft: Draft, where: str, given: dict[str, str]) -> None:
    """What the guest reads about its maker (SMBIOS type 1), as far as a machine can have it; the rest is lost."""
    kept = {key: value for key, value in given.items() if key in _IDENTITY and re.fullmatch(r"[ -~]{1,64}", value)}
    for key, value in kept.items():
        draft.put(f"smbios.{key}", value)
    for held, rank in ((True, "done"), (False, "lost")):
        if shown := ", ".join(f"{key}={value}" for key, value in given.items() if (key in kept) == held):
            reason = "the guest reads the same about its maker" if held else "a machine has no such word about its maker"
            draft.note(rank, where, shown, reason, "" if held else "-smbios in qemu_args")  # type: ignore[arg-type]


def empty_drive(draft: Draft, where: str, value: str) -> None:
    """A drive without a disc."""
    draft.done(where, value, "an empty drive: a disc can be plugged in while the machine runs (tinamou disk)")


_TOOLS = re.compile(r"isoimages|guestadditions|vmware-?tools|prltools|emptybackingstring", re.IGNORECASE)


def tools_disc(file: str) -> bool:
    """Whether a disc is one of drivers that its virtualizer has at hand for every guest, or stands for none."""
    return bool(_TOOLS.search(file.replace("\\", "/").rpartition("/")[2]) or "isoimages" in file)


def uncabled(draft: Draft, where: str, value: str) -> None:
    """An interface that was connected to nothing."""
    draft.lost(where, value, "an interface without a cable is left out", "add [[net]] where the guest needs it")


def attach(draft: Draft, disk: Disk, controller: str, *, windows: bool) -> None:
    """A disk on a controller of that name."""
    draft.disks.append(disk)
    kind = controller.lower()
    draft.done(disk.where, f"on {controller or 'no named controller'}", "where a disk sits is tinamou's to choose")
    if "virtio" in kind and draft.get("os") and not disk.cdrom:
        draft.put("windows.virtio", True)
    if disk.cdrom or "virtio" in kind:
        return
    if "nvme" in kind:
        disk.options["interface"] = "nvme"
    elif draft.get("os"):
        reason = "the disk is on a SATA port: Windows has no driver for virtio of its own"
        fix = "install the virtio drivers in the guest, then set windows.virtio = true: many times faster"
        draft.changed(disk.where, disk.file or disk.size, reason, fix)
    elif windows:
        reason = f"its disk becomes a virtio disk instead of {controller}, and Windows has no driver for that of its own"
        fix = "install the virtio drivers (viostor) in the guest before it is moved, or it stops at its first start"
        draft.check(disk.where, disk.file or disk.size, reason, fix)
    else:
        reason = (
            f"virtio instead of {controller or 'an emulated controller'}: many times faster; Linux and BSDs have its driver"
        )
        fix = "a guest whose initrd or fstab knows the old controller alone has to be mended: --import does that to its copy"
        disk.moved = controller or "an emulated controller"
        draft.changed(disk.where, disk.file or disk.size, reason, fix)


def connect(draft: Draft, where: str, kind: str, name: str, model: str, mac: str, *, windows: bool) -> dict[str, object]:
    """An interface: ``kind`` is nat, bridged, internal, or none of them."""
    net = draft.net()
    if kind == "bridged":
        reason = f"it was on an interface of another host ({name or 'unnamed'}); here it is on a network of its own"
        draft.check(where, kind, reason, 'set type = "bridge" and bridge = "br0", a bridge of this host')
    elif kind == "internal":
        network = machine_name(name)[:31] or "internal"
        net |= {"type": "bridge", "network": network, "isolated": True}
        draft.changed(
            where, f"{kind} {name}".strip(), f"a network of tinamou's, {network}, that leads nowhere else", "set network = …"
        )
    elif kind != "nat":
        draft.lost(
            where,
            f"{kind} {name}".strip(),
            "no network of that kind is here; the card is on an ordinary one",
            "set type = …",
        )
    nets.card(draft, net, where, model, windows=windows)
    if mac:
        nets.set_mac(draft, net, where, mac)
    return net
