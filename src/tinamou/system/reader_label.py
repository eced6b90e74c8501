"""The SELinux label of programs that were shut in (shut_in.py): one type for all, categories by whose process it is of.

The type is in the policy an administrator loads once (facts/tinamou.cil). It opens files of any label, but for the system's
secrets, reaches no network and no socket of others, starts no program, makes no name; its root says which files there are.
"""

from __future__ import annotations

import functools
import os

from tinamou.system import selinux
from tinamou.system.exec import find_tool

__all__ = ["entered", "missing"]

_HALF = 512
"""Half of the categories that the policies of every distribution have."""


def entered(program: str) -> str:
    """The label to start this program under; empty where there is none."""
    return _asked(program, os.getpid())[0]


def missing() -> str | None:
    """Why qemu-img gets no label, empty where it does; None where SELinux is not active, or there is no qemu-img."""
    program = find_tool("qemu-img")
    return _asked(program, os.getpid())[1] if program else None


@functools.lru_cache(maxsize=16)
def _asked(program: str, number: int) -> tuple[str, str | None]:
    """The label, or why there is none. A policy that is loaded meanwhile is seen by the next command."""
    mine, whose = selinux.context()
    if not whose:
        return "", None
    label = f"{whose}:tinamou_reader_t:s0:c{number % _HALF},c{_HALF + number // _HALF % _HALF}"
    if not selinux.has_label(label):
        return "", f"the policy has no label {label}"
    if not selinux.can_become(mine, label):
        return "", f"the policy does not let {mine} become {label}"
    held = selinux.label_of(program)
    if not selinux.allows(label, held, "file", "entrypoint"):
        return "", f"{program} has the label {held or '(none)'}, and the policy lets no program of that begin as {label}"
    return label, ""
