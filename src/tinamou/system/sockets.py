"""Unix-domain stream sockets: connect without blocking, also where the path is longer than the kernel's 107 bytes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["LONGEST_PATH", "NotListeningError", "connect_unix"]

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
    try:
        _connect(sock, path)
    except (FileNotFoundError, ConnectionRefusedError, BlockingIOError) as reason:
        sock.close()
        raise NotListeningError(reason.errno, reason.strerror, path) from reason
    except BaseException:
        sock.close()
        raise
    return sock


def _connect(sock: socket.socket, path: str) -> None:
    if len(os.fsencode(path)) <= LONGEST_PATH:
        sock.connect(path)
        return
    folder = os.open(Path(path).parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{folder}/{Path(path).name}")
    finally:
        os.close(folder)
