"""What is said on the resident's line, as bytes (the format is described at the top of resident.c)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from tinamou.errors import GuestError

__all__ = ["HEADER", "LARGEST", "command", "frame", "identity"]

HEADER = struct.Struct("<B3xI")
LARGEST = 1 << 20
"""Bytes a frame to the guest may have."""


def frame(kind: str, payload: bytes) -> bytes:
    """One frame. Raises GuestError when it is longer than the resident's buffer."""
    if len(payload) > LARGEST:
        raise GuestError(f"{len(payload)} bytes are more than the resident takes at once", fix="copy the data in as a file")
    return HEADER.pack(ord(kind), len(payload)) + payload


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


def command(argv: Sequence[str], environment: Mapping[str, str] | None, data: bytes) -> bytes:
    """The payload of a command: an empty environment means the resident's own."""
    entries = [f"{name}={value}" for name, value in (environment or {}).items()]
    strings = b"".join(text.encode() + b"\0" for text in (*argv, *entries))
    return struct.pack("<HH", len(argv), len(entries)) + strings + data
