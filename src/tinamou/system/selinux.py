"""What this kernel's SELinux answers: which labels it has, and who may become what; nothing where it is not active.

Source: selinux_file_context(5), security_compute_av(3); the files are those libselinux reads.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tinamou.system.closing import Closing

__all__ = ["CONTEXT", "SELINUXFS", "allows", "can_become", "context", "has_label", "label_of"]

SELINUXFS = Path("/sys/fs/selinux")
CONTEXT = Path("/proc/self/attr/current")
_LONGEST = 4096


def context(place: Path = SELINUXFS, own: Path = CONTEXT) -> tuple[str, str]:
    """The label of this process, and the user and role it begins with; empty where SELinux is not active.

    ``place`` is selinuxfs, ``own`` the file that has the label.
    """
    if not (place / "enforce").exists():
        return "", ""
    mine = _read(own)
    user, _, rest = mine.partition(":")
    role, _, _ = rest.partition(":")
    return (mine, f"{user}:{role}") if user and role else ("", "")


def has_label(label: str, place: Path = SELINUXFS) -> bool:
    """Whether the policy knows it."""
    return bool(_answer(place / "context", label))


def can_become(mine: str, label: str, place: Path = SELINUXFS) -> bool:
    """What the kernel says of both rights it asks for when a program is started that can have no new privileges."""
    rights = (("process", "transition"), ("process2", "nnp_transition"))
    return all(allows(mine, label, kind, right, place) for kind, right in rights)


def allows(source: str, target: str, kind: str, right: str, place: Path = SELINUXFS) -> bool:
    """Whether what has the one label has this right to what has the other, which is of this class."""
    index, bit = _read(place / "class" / kind / "index"), _read(place / "class" / kind / "perms" / right)
    said = _answer(place / "access", f"{source} {target} {index}") if index.isdecimal() and bit.isdecimal() else ""
    with contextlib.suppress(ValueError, IndexError):
        return bool(int(said.split()[0], 16) >> (int(bit) - 1) & 1)
    return False


def label_of(path: str) -> str:
    """The label of a file; empty where it has none."""
    with contextlib.suppress(OSError):
        return os.getxattr(path, "security.selinux").decode(errors="replace").strip("\0")
    return ""


def _answer(file: Path, asked: str) -> str:
    """What the kernel answers to a question; empty for one it refuses."""
    with contextlib.suppress(OSError), Closing(os.open(file, os.O_RDWR | os.O_CLOEXEC)) as descriptor:
        os.write(descriptor, asked.encode())
        return os.read(descriptor, _LONGEST).decode(errors="replace").strip("\0\n ")
    return ""


def _read(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text(errors="replace").strip("\0\n ")
    return ""
