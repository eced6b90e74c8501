"""Recorded facts for tests of pure code: QEMU 7.2, 10.0 and 11.1 of Debian, its firmware, what accelerator trials say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from tinamou.facts import AccelFacts, Firmware, QemuFacts
from tinamou.facts.stored import accel_from, qemu_from

FOLDER = Path(__file__).parent / "facts"
VERSIONS = ("7.2", "10.0", "11.1")
ARCHES = ("x86_64", "aarch64", "riscv64")
ACCELS = ("kvm-works", "kvm-needs", "kvm-fails", "hvf", "tcg")


def qemu(version: str, arch: str) -> QemuFacts:
    """``qemu("7.2", "x86_64")``: what Debian's binary of that version said."""
    return qemu_from(json.loads((FOLDER / f"qemu-{version}-{arch}.json").read_text()))


def firmware() -> tuple[Firmware, ...]:
    """OVMF, AAVMF and U-Boot as Debian 12 installs them."""
    return tuple(map(_firmware, json.loads((FOLDER / "firmware-debian.json").read_text())))


def _firmware(plain: dict[str, Any]) -> Firmware:
    sets = {name: frozenset(plain[name].split()) for name in ("interfaces", "features")}
    return Firmware(**{**plain, **sets, "targets": tuple((arch, tuple(machines)) for arch, machines in plain["targets"])})


def accel(name: str, arch: str) -> AccelFacts:
    """Trials on a host whose processor is of ``arch``.

    ``kvm-fails`` was recorded where KVM interprets instructions, ``kvm-works`` in a guest with emulated AMD SVM;
    ``kvm-needs`` (a CPU feature less) and ``hvf`` (macOS) are written by hand; ``tcg`` is a host with nothing else.
    """
    facts = accel_from(json.loads((FOLDER / f"accel-{name}.json").read_text()))
    return dataclasses.replace(facts, arch=arch)
