"""Programs of ours that run on this host: small, static, compiled for each architecture (images/programs)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["own_program"]

_FOLDER = Path(__file__).parent.parent / "images/programs"
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def own_program(name: str) -> str:
    """Where the program is. Raises FileNotFoundError for an architecture it was not compiled for."""
    machine = os.uname().machine.lower()
    path = _FOLDER / f"{name}.{_ARCHITECTURES.get(machine, machine)}"
    if not path.exists():
        why = f"this architecture has no {name} yet: compile it with tinamou/images/programs/build"
        raise FileNotFoundError(errno.ENOENT, why, str(path))
    return str(path)
