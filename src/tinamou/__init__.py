"""Tinamou starts QEMU virtual machines the right way and keeps them right.

``from tinamou import Machine``; public names are loaded on first use, so that importing the package costs nothing. What is
not named here, in `tinamou.aio` or in docs/reference/python.md is internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinamou.version import __version__

if TYPE_CHECKING:
    from tinamou.errors import (
        ControlError,
        GuestError,
        HostError,
        ImageError,
        LaunchError,
        NoCommandError,
        PlanError,
        PrepareError,
        ProbeError,
        Problem,
        SpecError,
        StateError,
        TimeLimitError,
        TinamouError,
    )
    from tinamou.guest.agent import Completed
    from tinamou.guest.copy import Copied
    from tinamou.guest.ready import Milestone, ReadyReport
    from tinamou.images.progress import Progress
    from tinamou.launch.difference import Difference
    from tinamou.machine.blocking import Disks, Forks, Machine, Nics, Pool, SharedPool, Snapshots
    from tinamou.machine.changing import Altered, Change
    from tinamou.machine.known import build_image, checkpoints, fork, import_machine, inject_drivers, machines, open
    from tinamou.machine.parts_of import Disk, Nic
    from tinamou.snapshots.checkpoint import Checkpoint
    from tinamou.snapshots.history import Snapshot
    from tinamou.spec import MachineSpec
    from tinamou.state.record import Record
    from tinamou.system.paths import Host
    from tinamou.units import CpuSet, Mac, PciAddress, Size

__all__ = [
    "Altered",
    "Change",
    "Checkpoint",
    "Completed",
    "ControlError",
    "Copied",
    "CpuSet",
    "Difference",
    "Disk",
    "Disks",
    "Forks",
    "GuestError",
    "Host",
    "HostError",
    "ImageError",
    "LaunchError",
    "Mac",
    "Machine",
    "MachineSpec",
    "Milestone",
    "Nic",
    "Nics",
    "NoCommandError",
    "PciAddress",
    "PlanError",
    "Pool",
    "PrepareError",
    "ProbeError",
    "Problem",
    "Progress",
    "ReadyReport",
    "Record",
    "SharedPool",
    "Size",
    "Snapshot",
    "Snapshots",
    "SpecError",
    "StateError",
    "TimeLimitError",
    "TinamouError",
    "__version__",
    "build_image",
    "checkpoints",
    "fork",
    "import_machine",
    "inject_drivers",
    "machines",
    "open",
]

_HOMES = {
    "tinamou.errors": (
        *("ControlError", "GuestError", "HostError", "ImageError", "LaunchError", "NoCommandError", "PlanError"),
        *("PrepareError", "ProbeError", "Problem", "SpecError", "StateError", "TimeLimitError", "TinamouError"),
    ),
    "tinamou.guest.agent": ("Completed",),
    "tinamou.guest.copy": ("Copied",),
    "tinamou.guest.ready": ("Milestone", "ReadyReport"),
    "tinamou.images.progress": ("Progress",),
    "tinamou.launch.difference": ("Difference",),
    "tinamou.machine.blocking": ("Disks", "Forks", "Machine", "Nics", "Pool", "SharedPool", "Snapshots"),
    "tinamou.machine.changing": ("Altered", "Change"),
    "tinamou.machine.known": ("build_image", "checkpoints", "fork", "import_machine", "inject_drivers", "machines", "open"),
    "tinamou.machine.parts_of": ("Disk", "Nic"),
    "tinamou.snapshots.checkpoint": ("Checkpoint",),
    "tinamou.snapshots.history": ("Snapshot",),
    "tinamou.spec": ("MachineSpec",),
    "tinamou.state.record": ("Record",),
    "tinamou.system.paths": ("Host",),
    "tinamou.units": ("CpuSet", "Mac", "PciAddress", "Size"),
}


def __getattr__(name: str) -> object:
    import importlib

    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'tinamou' has no attribute {name!r}")
