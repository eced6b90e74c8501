"""The guest that mends others' disks: tiny, with the file systems and volume groups other Linux guests are kept in.

It runs in memory, in a throw-away machine without a network, and calls the programs of the system on the disk.
"""

from __future__ import annotations

from pathlib import Path

from tinamou.images.tiny import MODULES, Tiny

__all__ = ["recipe", "script"]

_MODULES = ("xfs", "btrfs", "f2fs", "jfs", "dm_mod", "dm_mirror", "dm_snapshot")
_PROGRAMS = {"usr/sbin/lvm": ("sbin/lvm", "usr/sbin/lvm")}


def recipe(arch: str) -> Tiny:
    """How it is built for an architecture."""
    return Tiny(arch, "mender", 1, packages=("lvm2", "libsystemd0"), programs=_PROGRAMS, modules=(*MODULES, *_MODULES))


def script(name: str) -> str:
    """One of its scripts: ``find``, which looks for the system and calls ``mend`` in its root folder."""
    return (Path(__file__).parent / "mending" / name).read_text()
