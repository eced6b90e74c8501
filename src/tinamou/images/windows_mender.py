"""The guest that changes a Windows which is not running: tiny, with NTFS for writing and hivex for the registry.

It runs in memory, in a throw-away machine without a network; what it does is in ``windows_drivers.sh``.
"""

from __future__ import annotations

from pathlib import Path

from tinamou.images.tiny import MODULES, Tiny

__all__ = ["NAME", "recipe", "script"]

NAME = "windows-mender"
_TRIPLETS = ("x86_64-linux-gnu", "aarch64-linux-gnu", "riscv64-linux-gnu")
_PROGRAMS = {
    "usr/bin/hivexsh": ("usr/bin/hivexsh",),
    "usr/bin/ntfs-3g": ("bin/ntfs-3g", "usr/bin/ntfs-3g"),
    **{
        f"usr/lib/gconv/{name}.so": tuple(f"usr/lib/{triplet}/gconv/{name}.so" for triplet in _TRIPLETS)
        for name in ("UTF-16", "ISO8859-1")
    },
}
"""The C library loads what it converts the registry's names by."""


def recipe(arch: str) -> Tiny:
    """How it is built for an architecture."""
    return Tiny(arch, NAME, 2, packages=("libhivex-bin", "ntfs-3g"), programs=_PROGRAMS, modules=(*MODULES, "fuse"))


def script() -> str:
    """What it runs."""
    return (Path(__file__).parent / "windows_drivers.sh").read_text()
