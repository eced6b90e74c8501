"""Runs the checks of the watch over what was seen, the gravest first: is it there, does it run, has it room."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

from tinamou.doctor.finding import Finding, Severity
from tinamou.monitor.observation import HostObservation, Observation

__all__ = ["HOST_CHECKS", "MACHINE_CHECKS", "examine_host", "examine_machine", "wrong"]

MACHINE_CHECKS = (
    "qemu_killed",
    "qemu_silent",
    "guest_panic",
    "disk_stopped",
    "guest_oom",
    "guest_silent",
    "guest_memory",
    "disk_space",
    "balloon_floor",
    "disk_chain",
    "disk_check",
)
"""The names of the checks of one machine; each is a module of ``monitor.checks``."""

HOST_CHECKS = ("host_memory", "budget")
"""Those of the host, which the machines share."""


def examine_machine(seen: Observation, host: HostObservation) -> list[Finding]:
    """One finding per check, in their order."""
    return [module.check(seen, host).named(name, module.TITLE) for name, module in _modules(MACHINE_CHECKS)]


def examine_host(host: HostObservation) -> list[Finding]:
    """One finding per check."""
    return [module.check(host).named(name, module.TITLE) for name, module in _modules(HOST_CHECKS)]


@cache
def _modules(names: tuple[str, ...]) -> tuple[tuple[str, ModuleType], ...]:
    return tuple((name, import_module(f"tinamou.monitor.checks.{name}")) for name in names)


def wrong(finding: Finding) -> bool:
    """Whether somebody should be told: what is unknown or merely worth knowing is not."""
    return finding.severity in (Severity.WARNING, Severity.BAD)
