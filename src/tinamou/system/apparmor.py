"""AppArmor of this kernel: where it tells what is loaded, the program that loads, and how a profile is removed.

Source: apparmor_parser(8), Documentation/admin-guide/LSM/apparmor.rst.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["APPARMOR", "PARSER", "remove"]

APPARMOR = Path("/sys/kernel/security/apparmor")
"""The kernel's folder; not there where AppArmor is not active."""
PARSER = ("apparmor_parser", "--replace", "--skip-cache")
"""Loads the profiles in the file that is named, or in its input, in place of those of these names."""


def remove(name: str) -> None:
    """Remove one profile; what is not there any more is gone with a restart of the host. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(APPARMOR / ".remove", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, name.encode())
        finally:
            os.close(descriptor)
