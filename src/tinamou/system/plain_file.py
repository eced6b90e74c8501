"""Reading files that somebody else may have put there: only plain ones with the owner and the size they should have."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection
from pathlib import Path

__all__ = ["OddFileError", "copy_plain", "read_plain"]

_PIECE = 1 << 20


class OddFileError(OSError):
    """A file that is not what it should be: a link, a device, somebody else's, or too large."""


def read_plain(path: Path, *, owners: Collection[int] | None, most: int) -> bytes:
    """What a file holds; see `copy_plain`."""
    descriptor = _opened(path, owners, most)
    try:
        found = bytearray()
        while piece := os.read(descriptor, min(_PIECE, most + 1 - len(found))):
            found += piece
    finally:
        os.close(descriptor)
    if len(found) > most:
        raise OddFileError(f"{path} grows while it is read")
    return bytes(found)


def copy_plain(source: Path, target: Path, *, owners: Collection[int] | None, most: int) -> None:
    """Copy a file to a new one that is this user's alone. Raises OSError; no half of it is left.

    ``source`` must be a plain file of at most ``most`` bytes that belongs to one of ``owners`` (None: anybody) and has no
    second name elsewhere, else OddFileError is raised. It is opened without following a link or waiting for anybody; the
    path of its folder is trusted.
    """
    data = read_plain(source, owners=owners, most=most)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except BaseException:
        with contextlib.suppress(OSError):
            target.unlink()
        raise


def _opened(path: Path, owners: Collection[int] | None, most: int) -> int:
    held = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(held)
        if fault := _fault(status, owners, most):
            raise OddFileError(f"{path} {fault}")
        return os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(held)


def _fault(status: os.stat_result, owners: Collection[int] | None, most: int) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "is no plain file"
    if owners is not None and status.st_uid not in owners:
        return f"belongs to user {status.st_uid}, not to {' or '.join(map(str, sorted(owners)))}"
    if owners is not None and status.st_nlink != 1:
        return f"has {status.st_nlink} names"
    if status.st_size > most:
        return f"holds {status.st_size} bytes, where {most} are the most"
    return ""
