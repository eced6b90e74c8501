"""Part security: what stands between QEMU and the host, where it is a choice."""

from __future__ import annotations

from typing import Literal

from tinamou.blueprint import Contribution, Note, Why
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.protocol import Part, Resolved

__all__ = ["HOSTS", "PART", "SecuritySpec"]

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


def _contribute(resolved: Resolved) -> Contribution:
    """A word where QEMU's own filter is the only one."""
    if resolved.spec.security.syscalls == "qemu":
        why = Why("spec security.syscalls", "was asked for")
    elif resolved.facts.host.arch not in HOSTS:
        why = Why("host", f"the system calls of {resolved.facts.host.arch or 'this architecture'} are not listed")
    else:
        return Contribution()
    return Contribution(notes=(Note("warning", f"QEMU's own filter of system calls is the only one: {why.reason}", why),))


PART = Part(_contribute)
