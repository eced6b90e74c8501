"""The resident: a small program in the guest that gives a fork its identity and runs commands within milliseconds.

``resident.c`` is its source, ``resident.ARCH`` the program, pushed into the guest before its first checkpoint.
"""

from __future__ import annotations

from tinamou.guest.resident.install import install
from tinamou.guest.resident.line import Identity, Line, LineError

__all__ = ["Identity", "Line", "LineError", "install"]
