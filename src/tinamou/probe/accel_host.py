"""What the host's files say about virtualization: hints for explaining a failed trial, and when a trial must be repeated."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

from tinamou.facts.stored import Plain
from tinamou.late import dataclass
from tinamou.system.rooted import Rooted

__all__ = ["AccelHost", "look"]

_MODULES = ("kvm", "kvm_intel", "kvm_amd", "kvm_pvm")


@dataclass(frozen=True)
class AccelHost:
    """``flags`` are those of the first processor that matter here (``vmx``, ``svm``, ``hypervisor``).

    ``device`` tells whether /dev/kvm exists, ``group`` is the number of the group it belongs to and ``group_may`` whether
    that group may read and write it. ``identity`` changes with anything that may change the outcome of a trial.
    """

    system: str
    machine: str
    flags: frozenset[str]
    modules: frozenset[str]
    device: bool
    group: int
    group_may: bool
    identity: list[Plain]


def look(files: Rooted) -> AccelHost:
    """Read the hints below a root."""
    name = os.uname()
    processor = (files.read("/proc/cpuinfo", limit=8192) or "").split("\n\n")[0]
    modules = frozenset(module for module in _MODULES if files.exists(f"/sys/module/{module}"))
    try:
        stat = os.stat(files.path("/dev/kvm"))  # noqa: PTH116
        device, group, mode = True, stat.st_gid, stat.st_mode
        node: list[Plain] = [stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev]
    except OSError:
        device, group, mode, node = False, 0, 0, []
    boot = files.read("/proc/sys/kernel/random/boot_id")
    return AccelHost(
        system=name.sysname,
        machine={"arm64": "aarch64", "amd64": "x86_64"}.get(name.machine, name.machine),
        flags=frozenset(processor.split()) & {"vmx", "svm", "hypervisor"},
        modules=modules,
        device=device,
        group=group,
        group_may=mode & 0o060 == 0o060,
        identity=[
            [name.sysname, name.release, name.machine, boot],
            node,
            [os.geteuid(), *sorted(os.getgroups())],
            [zlib.crc32(_steady(processor).encode()), *_parameters(files, modules)],
        ],
    )


def _steady(processor: str) -> str:
    """The processor's description without what changes from moment to moment."""
    kept = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags", "Features", "isa", "CPU ")
    return "\n".join(line for line in processor.splitlines() if line.startswith(kept))


def _parameters(files: Rooted, modules: frozenset[str]) -> Iterator[Plain]:
    for module in sorted(modules):
        folder = f"/sys/module/{module}/parameters"
        yield module
        yield from [f"{module}.{name}={files.read(f'{folder}/{name}')}" for name in files.names(folder)]
