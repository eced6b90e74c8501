"""What the kernel permits a machine, found out by trying; asked only for machines that want it."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.late import dataclass, field

__all__ = ["Permits"]


@dataclass(frozen=True)
class Permits:
    """Each is the reason why not, empty where a trial went well, None where nothing was tried.

    ``real_time``: threads under SCHED_FIFO; ``real_time_in_groups``: the same inside a control group of its own, which some
    kernels give no time at all. ``io_uring`` and ``native``: the two ways to queue requests. ``direct`` maps a file, or a
    folder for files that will be made in it, to why it cannot be read around the page cache (only those that cannot).
    ``device_nodes`` maps names of PCI devices, network interfaces and disks to their memory nodes, -1 where none is known.
    """

    real_time: str | None = None
    real_time_in_groups: str | None = None
    io_uring: str | None = None
    native: str | None = None
    direct: Mapping[str, str] = field(default_factory=dict)
    device_nodes: Mapping[str, int] = field(default_factory=dict)
