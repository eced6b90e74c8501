"""The smallest disk that starts: its boot sector says hello on the serial port, and halts."""

from __future__ import annotations

from pathlib import Path

GREETING = "hello from the disk"
SECTOR = bytes.fromhex("fa31c08ed8fcbe237cac84c0741288c3bafd03eca82074fbbaf80388d8eeebe9f4ebfd") + (
    f"\r\n{GREETING}\r\n\0".encode()
)
"""Prints it on the first serial port, and halts."""
_ACTIVE = bytes.fromhex("80000200833f20000100000000180000")


def greeting_disk(path: Path) -> Path:
    """A raw disk of 4 MiB with that boot sector and one active partition."""
    table = _ACTIVE + bytes(48) + b"\x55\xaa"
    path.write_bytes(SECTOR.ljust(446, b"\0") + table + bytes((4 << 20) - 512))
    return path
