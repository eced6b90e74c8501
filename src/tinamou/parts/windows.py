"""Windows as a guest: what each release needs of its machine, and why; what the description leaves open is settled by it.

Source: docs/guides/windows.md has the table and where each line of it is from.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, Literal

from tinamou.blueprint import Contribution, Flag, Note, Why
from tinamou.errors import Problem
from tinamou.late import dataclass, replace
from tinamou.parts.boot import firmware_of
from tinamou.parts.protocol import Part, Resolved
from tinamou.parts.usb import UsbSpec
from tinamou.units import Size

if TYPE_CHECKING:
    from tinamou.parts.net import NetSpec
    from tinamou.spec import MachineSpec

__all__ = [
    "OS",
    "PART",
    "RELEASES",
    "Release",
    "board_before",
    "clock_base",
    "driven",
    "release",
    "settled",
    "without_virtio",
]

OS = Literal[
    "", "linux", "windows-10", "windows-11", "windows-server-2019", "windows-server-2022", "windows-server-2025", "other"
]


@dataclass(frozen=True)
class Release:
    """One Windows: its name, whether its setup wants Secure Boot and a TPM, whether VBS is on from the start, what
    memory, CPUs and disk its setup asks for, and how many sockets its largest edition for one user counts (0: any).
    """

    name: str
    secure: bool
    vbs: bool
    memory: Size
    cpus: int
    disk: Size
    sockets: int = 0


_GIB = 1 << 30

RELEASES = {
    "windows-10": Release("Windows 10", False, False, Size(2 * _GIB), 1, Size(32 * _GIB), 2),
    "windows-11": Release("Windows 11", True, True, Size(4 * _GIB), 2, Size(64 * _GIB), 2),
    "windows-server-2019": Release("Windows Server 2019", False, False, Size(2 * _GIB), 1, Size(32 * _GIB)),
    "windows-server-2022": Release("Windows Server 2022", True, True, Size(2 * _GIB), 1, Size(32 * _GIB)),
    "windows-server-2025": Release("Windows Server 2025", True, True, Size(2 * _GIB), 1, Size(32 * _GIB)),
}
"""Source: Microsoft Learn, *Windows 10/11 specifications*, *Hardware requirements for Windows Server*."""

_OF_2023 = ("Windows UEFI CA 2023", "Microsoft KEK 2K CA 2023")
_NEEDED = {"viostor", "netkvm"}
"""A machine on virtio throughout needs these: for its disks, for its cards."""
_VIRTIO_ALONE = ("queues", "queue_size", "mtu", "packed", "rss")


def release(spec: MachineSpec) -> Release | None:
    """The Windows that is the guest; None for another system."""
    return RELEASES.get(spec.os)


def without_virtio(spec: MachineSpec) -> bool:
    """Whether the guest is a Windows that has no drivers for virtio, nor gets them while it is set up."""
    own = spec.windows
    return release(spec) is not None and not (own.virtio or (own.drivers and own.user))


def clock_base(spec: MachineSpec) -> tuple[Literal["utc", "localtime"], str]:
    """What the guest's system takes the clock for where nothing is said, and why: a Windows, for local time.

    QEMU's ``localtime`` is the host's zone: where the setup is answered with UTC, that would be hours off.
    """
    if release(spec) is None:
        return "utc", "what all but Windows takes the clock for"
    if spec.windows.user and spec.windows.timezone == "UTC":
        return "utc", "the setup is answered with UTC as the time zone, and told that the clock has it"
    return "localtime", "Windows takes the clock for local time"


def board_before(name: str, version: tuple[int, int]) -> bool:
    """Whether a versioned machine type (``pc-q35-10.0``) is older than that; one without a version is not."""
    match = re.search(r"-(\d+)\.(\d+)$", name)
    return match is not None and (int(match[1]), int(match[2])) < version


def driven(spec: MachineSpec, drivers: Collection[str]) -> MachineSpec:
    """The description of a Windows on whose disk these drivers were found: it has virtio's where it has all it needs."""
    found = release(spec) is not None and set(drivers) >= _NEEDED
    return replace(spec, windows=replace(spec.windows, virtio=True)) if found else spec


def settled(spec: MachineSpec, drivers: Collection[str] = ()) -> MachineSpec:
    """What the description leaves open, as the guest's system needs it; the same again changes nothing.

    Windows has drivers for SATA and Intel's cards of its own, and none for virtio. ``drivers`` are those of virtio's that
    were found on its disk.
    """
    spec = driven(spec, drivers)
    here = release(spec)
    disk: Literal["sata", "virtio"] = "sata" if without_virtio(spec) else "virtio"
    card = "e1000e" if disk == "sata" else "virtio"
    disks = tuple(replace(one, interface=disk) if one.interface == "auto" else one for one in spec.disk)
    nets = tuple(replace(one, model=_card(one, card)) if one.model == "auto" else one for one in spec.net)
    spec = replace(spec, disk=disks, net=nets)
    if here and spec.display.type != "none" and not any(one.type == "tablet" for one in spec.usb):
        spec = replace(spec, usb=(*spec.usb, UsbSpec("tablet")))
    if here is None or not here.secure:
        return spec
    checks = spec.boot.firmware in ("auto", "uefi") and not (spec.boot.kernel or spec.boot.cmdline)
    boot: dict[str, Any] = {"secure": checks} if spec.boot.secure is None and not spec.boot.secure_keys else {}
    tpm: dict[str, Any] = {"enabled": True} if spec.tpm.enabled is None else {}
    return replace(spec, boot=replace(spec.boot, **boot), tpm=replace(spec.tpm, **tpm))


def _card(spec: NetSpec, card: str) -> Any:
    """A card whose description says what only virtio has is one."""
    return "virtio" if any(getattr(spec, name) not in (0, False, "auto") for name in _VIRTIO_ALONE) else card


def check(resolved: Resolved) -> list[Problem]:
    """Windows on a board it is not described for."""
    here = release(resolved.spec)
    if here and resolved.arch.name != "x86_64":
        reason = f"{here.name} is described for x86_64 machines, and this one is {resolved.arch.name}"
        return [Problem("os", resolved.spec.os, reason, 'leave it out, or set arch = "x86_64"')]
    return []


def contribute(resolved: Resolved) -> Contribution:
    """Sleep states and the timer of the board as Windows needs them, and what the user must hear."""
    here, undriven = release(resolved.spec), tuple(_undriven(resolved))
    if here is None:
        return Contribution(notes=undriven)
    sleep = Why("spec os", "Windows that puts itself to sleep does not come back: nobody presses a machine's power button")
    flags = [
        Flag("global", sleep, options={"driver": "ICH9-LPC", "property": name, "value": 1})
        for name in ("disable_s3", "disable_s4")
        if not (name == "disable_s3" and resolved.spec.boot.checked)
    ]
    if resolved.accel.accel == "kvm":
        ticks = Why(
            "spec os", "ticks of the old timer that came too late are dropped: made up for, the clock would run ahead"
        )
        options = {"driver": "kvm-pit", "property": "lost_tick_policy", "value": "discard"}
        flags.append(Flag("global", ticks, options=dict(options)))
    return Contribution(flags=tuple(flags), notes=(*undriven, *_notes(here, resolved)))


def _undriven(resolved: Resolved) -> Iterator[Note]:
    """The disk of an installed Windows at its first start, where Windows would not find it."""
    image, first = resolved.facts.image, next((one for one in resolved.disks if one.number == 0 and one.fresh), None)
    driver = {"virtio": "viostor", "scsi": "vioscsi"}.get(first.options.interface, "") if first else ""
    if not image.windows or not image.disk or not driver or driver in image.drivers:
        return
    named = release(resolved.spec)
    back = "take windows.virtio back, for a disk on SATA" if named else "name its os, which puts the disk on SATA"
    text = (
        f"{image.windows} on {image.name} has no driver for its disk, {driver}, that is loaded at boot: on virtio it would "
        f"stop with INACCESSIBLE_BOOT_DEVICE (0x7B); put it in (tinamou image inject {resolved.spec.image} NAME --drivers "
        f"virtio-win.iso), or {back}"
    )
    yield Note("warning", text, Why("image", f"no such service is started at boot by its registry: {driver}"))


def _notes(here: Release, resolved: Resolved) -> Iterator[Note]:
    spec = resolved.spec
    why = Why("spec os", f"what the setup of {here.name} asks for")
    if here.secure and not spec.tpm.enabled:
        yield Note("warning", f"no TPM: the setup of {here.name} may refuse the machine, and BitLocker keeps no key", why)
    if here.secure and not spec.boot.checked:
        yield Note("warning", f"no Secure Boot: the setup of {here.name} may refuse the machine", why)
    if spec.memory.size < here.memory:
        yield Note("warning", f"{here.name} needs {here.memory} of memory, and the machine has {spec.memory.size}", why)
    if spec.cpu.count < here.cpus:
        yield Note("warning", f"{here.name} needs {here.cpus} CPUs, and the machine has {spec.cpu.count}", why)
    if small := [disk.node for disk in resolved.disks if disk.fresh and len(disk.files) == 1 and disk.size < here.disk]:
        yield Note("info", f"{', '.join(small)}: less than the {here.disk} {here.name} is installed on", why)
    if here.sockets and spec.cpu.sockets > here.sockets:
        text = f"{here.name} uses {here.sockets} sockets at most: CPUs beyond stay idle; arrange them as cores"
        yield Note("warning", text, why)
    if resolved.facts.image.format == "iso" and spec.display.type == "none":
        yield Note("warning", 'the setup of Windows draws on a screen, and the machine has none: display = "vnc"', why)
    if without_virtio(spec):
        text = "disks are on SATA and cards are Intel's, which Windows knows; windows.virtio = true when it has the drivers"
        yield Note("remark", text, Why("spec os", "Windows has no drivers for virtio of its own"))
    if spec.windows.user and spec.clock.base == "auto" and clock_base(spec)[0] == "localtime" and not spec.clock.offset:
        text = f"the clock has this host's time zone, and the guest reads it in its own: {spec.windows.timezone}"
        yield Note("remark", text, Why("spec windows.timezone", "where the two differ, the guest's time is off"))
    yield from _certificates(resolved)


def _certificates(resolved: Resolved) -> Iterator[Note]:
    """A store that trusts nothing newer than 2011 (source: Microsoft, *Windows Secure Boot certificate expiration*)."""
    if not resolved.spec.boot.secure or (firmware := firmware_of(resolved)) is None:
        return
    known = resolved.facts.keys.templates.get(firmware.template, ())
    if lacking := [name for name in _OF_2023 if known and name not in {one.name for one in known}]:
        text = (
            f"the firmware's store of keys lacks {' and '.join(lacking)}: those of 2011 end in 2026, and boot loaders "
            "signed since are refused; install a newer ovmf (with BitLocker on, suspend its protectors before keys change)"
        )
        yield Note("warning", text, Why("spec boot.secure", "Windows is signed with certificates of 2023 from 2026 on"))


PART = Part(contribute, check=check)
