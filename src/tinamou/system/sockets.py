"""Unix-domain stream sockets: connect without blocking, listen for the owner alone; a path may be longer than 107 bytes."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from tinamou.system.closing import Closing, IfFailed

__all__ = ["LONGEST_PATH", "NotListeningError", "connect_unix", "listen_unix"]

LONGEST_PATH = 107
"""Bytes a unix socket path may have (source: unix(7), ``sun_path`` of 108 bytes with its closing zero)."""


class NotListeningError(OSError):
    """Nobody accepts connections on the socket yet: the file is missing, nobody listens, or the queue is full."""


def connect_unix(path: str) -> socket.socket:
    """A connected non-blocking stream socket. Raises NotListeningError when a later try may succeed, else OSError.

    A full queue answers EAGAIN at once and must be tried again: unlike TCP, the socket never becomes connected by
    itself (source: connect(2), EAGAIN for unix-domain sockets), which is why asyncio's own connect is not used.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    with IfFailed(sock.close):
        try:
            _at(path, sock.connect)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError) as reason:
            raise NotListeningError(reason.errno, reason.strerror, path) from reason
    return sock


def listen_unix(path: str) -> socket.socket:
    """A listening non-blocking stream socket that only its owner can connect to; what has the path is replaced.

    The mode is that of the socket itself, which its file inherits (source: Linux, unix_bind), so that there is no moment in
    which others may connect, and the umask of the process stays as it is. Raises OSError.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with IfFailed(sock.close):
        os.fchmod(sock.fileno(), 0o600)
        Path(path).unlink(missing_ok=True)
        _at(path, sock.bind)
        sock.listen(128)
        sock.setblocking(False)
    return sock


def _at(path: str, act: Callable[[str], None]) -> None:
    """Bind or connect to a path, however long it is."""
    if len(os.fsencode(path)) <= LONGEST_PATH:
        act(path)
        return
    with Closing(os.open(Path(path).parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
        act(f"/proc/self/fd/{folder}/{Path(path).name}")
