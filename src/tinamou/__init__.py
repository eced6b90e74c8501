"""Tinamou starts QEMU virtual machines the right way and keeps them right.

``from tinamou import Machine``; public names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinamou.version import __version__

if TYPE_CHECKING:
    from tinamou.errors import TinamouError
    from tinamou.machine.blocking import Machine, Pool, SharedPool
    from tinamou.spec import MachineSpec
    from tinamou.units import CpuSet, Mac, PciAddress, Size

__all__ = [
    "CpuSet",
    "Mac",
    "Machine",
    "MachineSpec",
    "PciAddress",
    "Pool",
    "SharedPool",
    "Size",
    "TinamouError",
    "__version__",
]

_HOMES = {
    "Machine": "tinamou.machine.blocking",
    "Pool": "tinamou.machine.blocking",
    "SharedPool": "tinamou.machine.blocking",
    "MachineSpec": "tinamou.spec",
    "TinamouError": "tinamou.errors",
    "CpuSet": "tinamou.units",
    "Mac": "tinamou.units",
    "PciAddress": "tinamou.units",
    "Size": "tinamou.units",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'tinamou' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
