"""The programs tinamou brings along: small, static, without a libc, compiled for each architecture.

``resident.c`` gives a fork its identity and runs commands within milliseconds; it is part of the tiny guest, and pushed into
others before their first checkpoint. ``first.c`` is the first process of the tiny guest, ``attended.c`` starts its
guest agent when somebody asks for it. ``logwriter.c`` runs on the host, and keeps the logs of QEMU and its helpers short;
``jail.c`` builds the walls around them, and becomes them; ``claims.c`` is a library for dnsmasq, which asks for more rights
than it needs.
``build`` compiles them.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["path", "program"]


def path(name: str, arch: str) -> Path:
    """Where the program for an architecture (QEMU's name of it) is; there may be none."""
    return Path(__file__).parent / f"{name}.{arch}"


def program(name: str, arch: str) -> bytes:
    """The program for a guest architecture (QEMU's name of it). Raises FileNotFoundError where there is none."""
    return path(name, arch).read_bytes()
