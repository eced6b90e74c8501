"""What is said on the resident's line, as bytes (the format is described at the top of resident.c)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from tinamou.errors import GuestError
from tinamou.guest.command import Command

__all__ = ["HEADER", "LARGEST", "PIECE", "RING", "WINDOW", "Size", "frame", "identity", "start"]

HEADER = struct.Struct("<BxHI")
"""Type, channel, length."""

LARGEST = 1 << 20
"""Bytes a frame may have."""

PIECE = 32768 - HEADER.size
"""Bytes of a command's input or output in one frame."""

RING, WINDOW = 1 << 16, 1 << 18
"""Bytes of a command's input, and of its output, that may be under way before the other side took some."""

Size = tuple[int, int]
"""Columns and rows of a terminal."""

_TERMINAL, _TELL = 1, 2


def frame(kind: str, payload: bytes = b"", channel: int = 0) -> bytes:
    """One frame. Raises GuestError when it is longer than the resident's buffer."""
    if len(payload) > LARGEST:
        raise GuestError(f"{len(payload)} bytes are more than the resident takes at once", fix="copy the data in as a file")
    return HEADER.pack(ord(kind), channel, len(payload)) + payload


def record(kind: str, payload: bytes) -> bytes:
    """One identity record."""
    return struct.pack("<BxH", ord(kind), len(payload)) + payload


def identity(
    *,
    entropy: bytes = b"",
    time_ns: int | None = None,
    hostname: str = "",
    macs: Mapping[bytes, bytes] | None = None,
    files: Sequence[tuple[str, int, bytes]] = (),
    signals: Sequence[tuple[str, int]] = (),
) -> list[bytes]:
    """Identity records: ``macs`` from old to new address, ``files`` as path, mode and content, ``signals`` by pid file."""
    records = [record("t", struct.pack("<qq", *divmod(time_ns, 1_000_000_000)))] if time_ns is not None else []
    records += [record("e", entropy)] if entropy else []
    records += [record("h", hostname.encode())] if hostname else []
    records += [record("m", old + new) for old, new in (macs or {}).items()]
    records += [record("f", struct.pack("<H", mode) + path.encode() + b"\0" + content) for path, mode, content in files]
    records += [record("s", struct.pack("<H", number) + path.encode() + b"\0") for path, number in signals]
    return records


def start(command: Command, terminal: Size | None = None, *, tell: bool = False) -> bytes:
    """The payload that starts a command, at a terminal of that size where there is one; ``tell`` asks for its number.

    Raises GuestError for more words than the resident takes.
    """
    entries = [f"{name}={value}" for name, value in command.env.items()]
    if len(command.argv) + len(entries) > 4000:
        count = len(command.argv) + len(entries)
        raise GuestError(f"The command has {count} words and variables, and the guest takes 4000", fix="put them in a file")
    flags = (_TERMINAL if terminal else 0) | (_TELL if tell else 0)
    columns, rows = terminal or (0, 0)
    head = struct.pack("<BxHHHH", flags, len(command.argv), len(entries), columns, rows)
    strings = (command.user, command.cwd, *command.argv, *entries)
    return head + b"".join(text.encode(errors="surrogateescape") + b"\0" for text in strings)
