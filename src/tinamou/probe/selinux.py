"""Whether a process of this host can be given a label of tinamou's: asked of the kernel, which decides it later.

Source: selinux_file_context(5), security_compute_av(3); the files are those libselinux reads.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tinamou.facts.labels import CATEGORIES, POLICY, TYPES

__all__ = ["probe_selinux"]

_PLACE = Path("/sys/fs/selinux")


def probe_selinux(place: Path = _PLACE, context: Path = Path("/proc/self/attr/current")) -> tuple[str, str]:
    """The user and role a label keeps, empty where SELinux is not active; and why no label can be entered, empty if one can.

    ``place`` is selinuxfs, ``context`` the file that has this process's own context.
    """
    if not (place / "enforce").exists():
        return "", ""
    mine = _read(context)
    user, _, rest = mine.partition(":")
    role, _, _ = rest.partition(":")
    if not user or not role:
        return "", ""
    whose = f"{user}:{role}"
    return whose, _refused(place, mine, whose)


def _refused(place: Path, mine: str, whose: str) -> str:
    for kind in TYPES:
        label = f"{whose}:tinamou_{kind}_t:s0:c0,c{CATEGORIES - 1}"
        if not _answer(place / "context", label):
            if not _answer(place / "context", f"{whose}:tinamou_{kind}_t:s0"):
                return f"the policy has no label {whose}:tinamou_{kind}_t:s0: semodule -i {POLICY} loads it"
            given = f"semanage user -m -r s0-s0:c0.c{CATEGORIES - 1} {whose.partition(':')[0]}"
            return f"{whose} may have no categories, which keep machines apart: {given} gives them"
        if not _may_become(place, mine, label):
            return f"the policy does not let {mine} become {label}"
    return ""


def _may_become(place: Path, mine: str, label: str) -> bool:
    """What the kernel says of both rights it asks for when a program is started that can have no new privileges."""
    return _has(place, mine, label, "process", "transition") and _has(place, mine, label, "process2", "nnp_transition")


def _has(place: Path, mine: str, label: str, kind: str, right: str) -> bool:
    index, bit = _read(place / "class" / kind / "index"), _read(place / "class" / kind / "perms" / right)
    said = _answer(place / "access", f"{mine} {label} {index}") if index.isdecimal() and bit.isdecimal() else ""
    with contextlib.suppress(ValueError, IndexError):
        return bool(int(said.split()[0], 16) >> (int(bit) - 1) & 1)
    return False


def _answer(file: Path, asked: str) -> str:
    """What the kernel answers to a question; empty for one it refuses."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        os.write(descriptor, asked.encode())
        return os.read(descriptor, 4096).decode(errors="replace").strip("\0\n ")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _read(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text(errors="replace").strip("\0\n ")
    return ""
