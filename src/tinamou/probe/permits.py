"""Tries what one machine wants of the kernel: real-time threads, queued requests, a place beside a device."""

from __future__ import annotations

from collections.abc import Iterable

from tinamou.facts import Permits
from tinamou.system import threads
from tinamou.system.rooted import Rooted

__all__ = ["device_nodes", "probe_permits"]

_PLACES = (
    ("/sys/bus/pci/devices", "numa_node"),
    ("/sys/class/net", "device/numa_node"),
    ("/sys/block", "device/numa_node"),
    ("/sys/block", "device/device/numa_node"),
)
"""Where devices are listed, and the file below each that holds its memory node (source: sysfs-bus-pci)."""


def probe_permits(*, real_time: bool = False, queued: bool = False, direct: Iterable[str] = (), near: str = "") -> Permits:
    """Tries only what is named; ``direct`` are files and folders that shall be read around the page cache."""
    refused: dict[str, str | None] = {}
    blocked: dict[str, str] = {}
    if queued:
        from tinamou.system import aio

        refused = {"io_uring": aio.uring_refusal(), "native": aio.native_refusal()}
        blocked = {path: reason for path in direct if (reason := aio.direct_refusal(path))}
    if real_time:
        refused |= {"real_time": threads.real_time_refusal(), "real_time_in_groups": _in_groups(Rooted())}
    return Permits(**refused, direct=blocked, device_nodes=device_nodes(Rooted(), (near,)) if near else {})


def _in_groups(files: Rooted) -> str:
    """Kernels with real-time group scheduling give new groups no real-time share (source: sched-rt-group.rst)."""
    if any(files.exists(f"/sys/fs/cgroup/{name}/cpu.rt_runtime_us") for name in ("cpu", "cpu,cpuacct", "")):
        return "this kernel shares real time out by control group (cpu.rt_runtime_us), and a new group has none"
    return ""


def device_nodes(files: Rooted, names: Iterable[str]) -> dict[str, int]:
    """Device name → memory node, -1 where the host does not say; devices that do not exist are left out."""
    found: dict[str, int] = {}
    for name in names:
        for folder, file in _PLACES:
            if files.exists(f"{folder}/{name}"):
                node = files.integer(f"{folder}/{name}/{file}")
                found[name] = max(found.get(name, -1), -1 if node is None else node)
    return found
