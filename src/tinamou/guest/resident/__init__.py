"""The resident: a small program in the guest that gives a fork its identity and runs commands within milliseconds.

The program itself is in `tinamou.images.programs`; a guest that does not bring it is given it before its first checkpoint.
"""

from __future__ import annotations

from tinamou.guest.resident.install import install
from tinamou.guest.resident.line import Identity, Line, LineError

__all__ = ["Identity", "Line", "LineError", "install"]
