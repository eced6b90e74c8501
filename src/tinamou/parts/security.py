"""Part security: what stands between QEMU and the host, where it is a choice."""

from __future__ import annotations

from typing import Literal

from tinamou.blueprint import Contribution, Note, Why
from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.protocol import Part, Resolved

__all__ = ["HOSTS", "PART", "SecuritySpec", "cores", "has_labels", "has_profiles"]

HOSTS = ("x86_64", "aarch64", "riscv64")
"""Architectures of hosts whose system calls are listed."""


@dataclass(frozen=True)
class SecuritySpec:
    """How far QEMU is confined."""

    syscalls: Literal["allow-list", "qemu"] = option(
        "allow-list",
        "allow-list: QEMU may make the system calls this machine needs, any other ends it; "
        "qemu: QEMU's own filter alone, which refuses what is known to be dangerous",
    )
    apparmor: Literal["auto", "require", "off"] = option(
        "auto", "profiles of the machine's own for QEMU and its helpers: auto has them where AppArmor is active"
    )
    selinux: Literal["auto", "require", "off"] = option(
        "auto", "a label of the machine's own for QEMU and its helpers: auto has it where tinamou's policy is loaded"
    )
    sched_core: Literal["auto", "require", "off"] = option(
        "auto",
        "while a thread of QEMU runs, the other hardware threads of its core run nobody else's; auto: where cores have any",
    )


def cores(resolved: Resolved) -> bool:
    """Whether QEMU gets the cores it runs on for itself while it runs there."""
    return resolved.spec.security.sched_core != "off" and not _sharing(resolved)


def _sharing(resolved: Resolved) -> str:
    """Why a core is not kept from others, empty where it can and should be."""
    host = resolved.facts.host
    if not host.smt:
        return "no core of this host runs more than one hardware thread"
    return "" if host.core_scheduling else "this kernel cannot schedule by cores (CONFIG_SCHED_CORE)"


def has_profiles(resolved: Resolved) -> bool:
    """Whether the machine gets AppArmor profiles of its own."""
    return resolved.spec.security.apparmor != "off" and not _without(resolved)


def _script(resolved: Resolved) -> str:
    """Why nothing can be said beforehand of what QEMU will run, empty where it is a program."""
    qemu = resolved.facts.qemu
    return f"{qemu.binary} is a script: what it will run is not known beforehand" if qemu.script else ""


def _without(resolved: Resolved) -> str:
    """Why there can be no AppArmor profiles here, empty where there can."""
    if not resolved.facts.host.apparmor:
        return "AppArmor is not active on this host, or its programs (package apparmor) are not installed"
    if resolved.owner is None:
        return "only root can load profiles"
    return _script(resolved) or resolved.facts.host.apparmor_refused


def has_labels(resolved: Resolved) -> bool:
    """Whether the machine gets SELinux labels of its own."""
    return resolved.spec.security.selinux != "off" and not _unlabelled(resolved)


def _unlabelled(resolved: Resolved) -> str:
    """Why there can be no SELinux labels here, empty where there can."""
    host = resolved.facts.host
    if not host.selinux:
        return "SELinux is not active on this host"
    return _script(resolved) or host.selinux_refused


def _check(resolved: Resolved) -> list[Problem]:
    """What was asked for and cannot be had."""
    spec = resolved.spec.security
    wanted = {
        "apparmor": (spec.apparmor, _without(resolved)),
        "selinux": (spec.selinux, _unlabelled(resolved)),
        "sched_core": (spec.sched_core, _sharing(resolved)),
    }
    return [
        Problem(f"security.{name}", asked, reason, "use auto")
        for name, (asked, reason) in wanted.items()
        if asked == "require" and reason
    ]


def _contribute(resolved: Resolved) -> Contribution:
    """A word where something that stands between QEMU and a host is left out, or cannot be had though the host has it."""
    spec, facts = resolved.spec.security, resolved.facts
    notes: list[Note] = []
    if spec.syscalls == "qemu" or facts.host.arch not in HOSTS:
        asked = Why("spec security.syscalls", "was asked for")
        why = asked if spec.syscalls == "qemu" else Why("host", f"the system calls of {facts.host.arch} are not listed")
        notes.append(Note("warning", f"QEMU's own filter of system calls is the only one: {why.reason}", why))
    if facts.host.apparmor and spec.apparmor == "auto" and (reason := _without(resolved)):
        notes.append(Note("info", f"no AppArmor profile: {reason}", Why("host", reason)))
    if facts.host.selinux and spec.selinux == "auto" and (reason := _unlabelled(resolved)):
        notes.append(Note("info", f"no SELinux label: {reason}", Why("host", reason)))
    if facts.host.smt and spec.sched_core == "auto" and (reason := _sharing(resolved)):
        text = f"its threads share cores with those of others, and what a processor leaks between them: {reason}"
        notes.append(Note("info", text, Why("host", reason)))
    return Contribution(notes=tuple(notes))


PART = Part(_contribute, check=_check)
