"""Talking to a running QEMU over QMP: the session, typed commands, and which monitor socket is for whom."""

from __future__ import annotations

from tinamou.control.monitors import connect_qmp
from tinamou.control.session import DisconnectedError, Event, Listener, RefusedError, Session, SilentError, connect

__all__ = [
    "DisconnectedError",
    "Event",
    "Listener",
    "RefusedError",
    "Session",
    "SilentError",
    "connect",
    "connect_qmp",
]
