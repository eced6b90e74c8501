"""One table of facts per guest architecture: adding an architecture is adding a file here."""

from __future__ import annotations

from tinamou.arch import aarch64, riscv64, x86_64
from tinamou.arch.arch import Arch

__all__ = ["ARCHES", "Arch"]

ARCHES: dict[str, Arch] = {arch.name: arch for arch in (x86_64.ARCH, aarch64.ARCH, riscv64.ARCH)}
