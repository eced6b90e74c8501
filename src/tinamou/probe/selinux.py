"""Whether a process of this host can be given a label of tinamou's: asked of the kernel, which decides it later."""

from __future__ import annotations

from pathlib import Path

from tinamou.facts.labels import CATEGORIES, POLICY, TYPES
from tinamou.system.selinux import CONTEXT, SELINUXFS, can_become, context, has_label

__all__ = ["probe_selinux"]


def probe_selinux(place: Path = SELINUXFS, own: Path = CONTEXT) -> tuple[str, str]:
    """The user and role a label keeps, empty where SELinux is not active; and why no label can be entered, empty if one can.

    ``place`` is selinuxfs, ``own`` the file that has this process's own context.
    """
    mine, whose = context(place, own)
    return (whose, _refused(place, mine, whose)) if whose else ("", "")


def _refused(place: Path, mine: str, whose: str) -> str:
    for kind in TYPES:
        label = f"{whose}:tinamou_{kind}_t:s0:c0,c{CATEGORIES - 1}"
        if not has_label(label, place):
            if not has_label(f"{whose}:tinamou_{kind}_t:s0", place):
                return f"the policy has no label {whose}:tinamou_{kind}_t:s0: semodule -i {POLICY} loads it"
            given = f"semanage user -m -r s0-s0:c0.c{CATEGORIES - 1} {whose.partition(':')[0]}"
            return f"{whose} may have no categories, which keep machines apart: {given} gives them"
        if not can_become(mine, label, place):
            return f"the policy does not let {mine} become {label}"
    return ""
