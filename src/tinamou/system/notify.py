"""What a service tells systemd of itself (source: sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket

__all__ = ["notify"]


def notify(text: str) -> None:
    """``READY=1``, ``STATUS=…``; nothing where no systemd listens (any more)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            line.sendto(text.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
