"""The resident: a small program in the guest that gives a fork its identity, and runs commands, at terminals too.

The program itself is in `tinamou.images.programs`; a guest that does not bring it is given it before its first checkpoint
and its first terminal.
"""

from __future__ import annotations

from tinamou.guest.resident.line import HeldError, Line, LineError
from tinamou.guest.resident.owed import Identity
from tinamou.guest.resident.sharing import Sharing, connect, shared
from tinamou.guest.resident.underway import RunningCommand

__all__ = ["HeldError", "Identity", "Line", "LineError", "RunningCommand", "Sharing", "connect", "shared"]
