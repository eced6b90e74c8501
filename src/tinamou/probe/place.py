"""What tells this user, place and kernel from others: what was tried here holds again only where all of it is the same."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tinamou.facts.stored import Plain
from tinamou.system import proc

__all__ = ["identity", "setting"]

_SETTINGS = (
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
    *(f"user/max_{name}_namespaces" for name in ("user", "mnt", "pid", "ipc", "uts", "cgroup", "net")),
)
"""Below /proc/sys; which of them there are depends on the kernel."""


def identity() -> list[Plain]:
    """Kernel, place and rights of this process, and what the administrator has set."""
    root = os.stat("/")  # noqa: PTH116
    places: list[str] = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("user", "mnt", "pid")]  # noqa: PTH115
    rights = re.findall(r"^(?:CapEff|Seccomp|NoNewPrivs):\s+(\w+)", proc.read("self", "status").decode(), re.MULTILINE)
    boot = setting("kernel/random/boot_id")
    return [boot, root.st_dev, root.st_ino, *places, *rights, _confined(), *map(setting, _SETTINGS)]


def setting(name: str) -> str:
    """A value below /proc/sys, empty where there is none."""
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


def _confined() -> str:
    """The profile of a security module this process is under."""
    try:
        return proc.read("self", "attr/current").decode(errors="replace").strip("\0\n ")
    except OSError:
        return ""
