"""AppArmor of this kernel: where it tells what is loaded, the program that loads, and how a profile is removed.

Source: apparmor_parser(8), Documentation/admin-guide/LSM/apparmor.rst.
"""

from __future__ import annotations

import functools
import os
from contextlib import suppress
from pathlib import Path

from tinamou.system.closing import Closing

__all__ = ["APPARMOR", "PARSER", "held", "remove"]

APPARMOR = Path("/sys/kernel/security/apparmor")
"""The kernel's folder; not there where AppArmor is not active."""
_OF_THIS_PROCESS = Path("/proc/self/attr")
PARSER = ("apparmor_parser", "--replace", "--skip-cache")
"""Loads the profiles in the file that is named, or in its input, in place of those of these names."""


def remove(name: str) -> None:
    """Remove one profile; what is not there any more is gone with a restart of the host. Raises OSError."""
    with suppress(FileNotFoundError), Closing(os.open(APPARMOR / ".remove", os.O_WRONLY | os.O_CLOEXEC)) as descriptor:
        os.write(descriptor, name.encode())


@functools.cache
def held() -> str:
    """Why this process may enter no profile: without new privileges, the kernel lets only an unconfined one do it."""
    own = _OF_THIS_PROCESS / "apparmor/current"
    try:
        mine = (own if own.exists() else _OF_THIS_PROCESS / "current").read_text(errors="replace").strip("\0\n")
        stacked = (APPARMOR / ".ns_stacked").exists() and (APPARMOR / ".ns_stacked").read_text().strip() == "yes"
    except OSError as error:
        return f"what tinamou itself runs under is not known: {error}"
    if mine != "unconfined" and not mine.endswith(" (unconfined)"):
        return f"tinamou itself runs under the profile {mine}"
    return "tinamou runs in a container with AppArmor profiles of its own below the host's" if stacked else ""
