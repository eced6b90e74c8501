"""What the service says in systemd's journal, with fields by which it can be asked for: ``journalctl TINAMOU_MACHINE=web``.

Source: systemd.journal-fields(7), and "Native Journal Protocol" of systemd.io for the datagrams.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

__all__ = ["JournalHandler", "ended", "heard_by_journal", "to_journal"]

SOCKET = "/run/systemd/journal/socket"
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_LONGEST = 32 << 10
"""Bytes of a value: a datagram holds some 200 KiB, and what is longer would have to be handed over as a file."""

_log = logging.getLogger(__name__)


def heard_by_journal() -> bool:
    """Whether what this process writes to stderr goes to the journal."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    with contextlib.suppress(OSError):
        stderr = os.fstat(2)
        return (device, inode) == (str(stderr.st_dev), str(stderr.st_ino))
    return False


def to_journal() -> None:
    """From now on what tinamou says in its logs is said there, with its fields."""
    logger = logging.getLogger("tinamou")
    logger.addHandler(JournalHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False


def ended(operation: Mapping[str, Any]) -> None:
    """Say that an operation has ended: one that failed as an error."""
    error = operation["error"]["error"] if operation["error"] else ""
    fields = {name: operation[key] for name, key in (("operation", "id"), ("verb", "verb"), ("caller", "caller"))}
    level = logging.ERROR if operation["state"] == "failed" else logging.INFO
    text = f"{operation['verb']} {operation['about']} {operation['state']}" + (f": {error}" if error else "")
    _log.log(level, "%s", text, extra={"fields": {**fields, "state": operation["state"], "machine": operation["about"]}})


class JournalHandler(logging.Handler):
    """Sends what is logged to the journal; ``extra={"fields": {…}}`` becomes fields TINAMOU_…"""

    def __init__(self, path: str = SOCKET) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        """Send it; a journal that does not listen keeps nobody from working."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        fields = {
            "MESSAGE": record.getMessage(),
            "PRIORITY": priority,
            "SYSLOG_IDENTIFIER": "tinamou",
            "LOGGER": record.name,
        }
        if record.exc_info:
            fields["TINAMOU_TRACE"] = logging.Formatter().formatException(record.exc_info)
        fields |= {f"TINAMOU_{name.upper()}": value for name, value in getattr(record, "fields", {}).items()}
        with contextlib.suppress(OSError):
            self._socket.sendto(b"".join(_field(name, str(value)) for name, value in fields.items()), self._path)


def _field(name: str, value: str) -> bytes:
    """A field; its value is told with its length, as lines in it may be anybody's."""
    data = value.encode(errors="replace")[:_LONGEST]
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
