"""Everything the planner has to know about one request, collected: image, binary, accelerator, firmware, host, place."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tinamou import late
from tinamou.facts import EncryptionFacts, Facts, Firmware, HyperVFacts, ImageFacts, PciFacts, Permits, Place, QemuFacts
from tinamou.facts.keys import KeyFacts
from tinamou.facts.usb import UsbFacts
from tinamou.images.progress import Progress, silent
from tinamou.images.resolve import resolve
from tinamou.machine.chains import existing_chains
from tinamou.machine.lending import net_facts
from tinamou.parts import windows
from tinamou.parts.disk.spec import DIRECT
from tinamou.probe.accel import probe_accel
from tinamou.probe.firmware import probe_firmware
from tinamou.probe.host import probe_host
from tinamou.probe.permits import probe_permits
from tinamou.probe.qemu import find_binary, is_script, probe_qemu
from tinamou.probe.walls import probe_walls
from tinamou.spec import MachineSpec
from tinamou.state import ledger
from tinamou.system.rooted import Rooted

__all__ = ["Once", "gather", "native_arch", "resolve_image"]

_Fact = TypeVar("_Fact")
_ARCH_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}


def native_arch() -> str:
    """The host's architecture under QEMU's name."""
    machine = os.uname().machine.lower()
    return _ARCH_NAMES.get(machine, machine)


def resolve_image(spec: MachineSpec, *, build: bool, progress: Progress = silent) -> ImageFacts:
    """The spec's image as files on this host, built or downloaded when ``build``. Raises ImageError."""
    arch = spec.arch or native_arch()
    if spec.boot.kernel and spec.image == "none":
        return ImageFacts(name="none", arch=arch, boots=("direct",))
    return resolve(spec.image, arch, progress=progress, build=build)


class Once:
    """What was asked of this host while many machines are planned in a row: each question is asked once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Any] = {}

    def __call__(self, question: tuple[object, ...], ask: Callable[[], _Fact]) -> _Fact:
        """The answer of the first time."""
        if question not in self._known:
            self._known[question] = ask()
        found: _Fact = self._known[question]
        return found


def gather(spec: MachineSpec, image: ImageFacts, place: Place, once: Once | None = None) -> Facts:
    """Facts about host and binary come from caches where they can; ``once`` has those of this process. Raises ProbeError."""
    spec, ask = windows.settled(spec, image.drivers), once or Once()
    qemu = ask(("qemu", image.arch), lambda: _qemu(image.arch))
    firmware = ask(("firmware", *qemu.data_dirs), lambda: probe_firmware(data_dirs=qemu.data_dirs).firmware)
    return Facts(
        chains=existing_chains(spec, image, Path(place.directory)),
        host=ask(("host",), probe_host),
        qemu=qemu,
        accel=ask(("accel", image.arch), lambda: probe_accel(qemu)),
        firmware=firmware,
        image=image,
        place=place,
        net=net_facts(spec.net, place),
        permits=_permits(spec, image, place, ask),
        pci=ask(("pci",), lambda: _pci(place)) if spec.pci else PciFacts(),
        usb=ask(("usb",), lambda: _usb(place)) if any(one.type == "host" for one in spec.usb) else UsbFacts(),
        encryption=_encryption(spec, firmware),
        walls=ask(("walls",), probe_walls),
        keys=_keys(spec, image, firmware),
        hyperv=_hyperv(spec),
        now=int(time.time()) if spec.clock.offset else 0,
        local=time.localtime().tm_gmtoff if spec.clock.offset else 0,
    )


def _qemu(arch: str) -> QemuFacts:
    found = probe_qemu(find_binary(arch), arch)
    return late.replace(found, script=is_script(found.binary))


def _pci(place: Place) -> PciFacts:
    from tinamou.machine.passthrough import pci_facts

    return pci_facts(exclude=place.directory)


def _usb(place: Place) -> UsbFacts:
    from tinamou.probe.usb import probe_usb

    held = ledger.look().usb
    return probe_usb(Rooted(), {port: Path(machine).name for port, machine in held.items() if machine != place.directory})


def _encryption(spec: MachineSpec, firmware: tuple[Firmware, ...]) -> EncryptionFacts:
    """Asked only for a machine that wants it: the others start without the question."""
    if spec.confidential.type == "off":
        return EncryptionFacts()
    from tinamou.probe.encryption import probe_encryption

    return probe_encryption(Rooted(), firmware)


def _keys(spec: MachineSpec, image: ImageFacts, firmware: tuple[Firmware, ...]) -> KeyFacts:
    """Asked only for a machine with Secure Boot."""
    if not spec.boot.checked:
        return KeyFacts()
    from tinamou.probe.keys import probe_keys

    return probe_keys(spec.boot.secure_keys, (one for one in firmware if any(arch == image.arch for arch, _ in one.targets)))


def _hyperv(spec: MachineSpec) -> HyperVFacts:
    """Asked only for a machine that may show such interfaces."""
    if not (windows.release(spec) or spec.cpu.hyperv not in ("auto", "off")):
        return HyperVFacts()
    from tinamou.probe.hyperv import probe_hyperv

    return probe_hyperv(Rooted())


def _permits(spec: MachineSpec, image: ImageFacts, place: Place, ask: Once) -> Permits:
    direct = tuple(disk.path or place.directory for disk in spec.disk if disk.cache in DIRECT)
    real_time, queued, near = bool(spec.cpu.realtime), bool(spec.disk or image.disk), spec.cpu.near
    question = ("permits", real_time, queued, direct, near)
    return ask(question, lambda: probe_permits(real_time=real_time, queued=queued, direct=direct, near=near))
