"""A key that two QEMUs share for one move: what goes between them is encrypted with it, and only they take part.

TLS with a pre-shared key needs no certificate and no authority (source: QEMU, crypto/tlscredspsk.c; RFC 4279).
QEMU reads the key from a folder that it is handed open: behind its walls it finds no other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from tinamou.control import Session
from tinamou.control.commands import add_fd_numbered, remove_fd
from tinamou.errors import ControlError

__all__ = ["KEY", "shared_key"]

KEY = "move-key"
"""What QEMU calls it."""
_FILE, _USER = "keys.psk", "qemu"
"""Names QEMU has for the file, and for whoever has the key where nothing else is said."""


@contextlib.asynccontextmanager
async def shared_key(
    session: Session, folder: Path, uid: int | None, key: str, end: Literal["client", "server"]
) -> AsyncIterator[None]:
    """For the block QEMU, which runs as ``uid``, has that key (hexadecimal) as `KEY`, by way of ``folder``, which is made.

    Raises ControlError where this QEMU has no TLS, or may not read the key.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of a move that was killed
    folder.mkdir(mode=0o700)  # noqa: ASYNC240
    fdset = -1
    try:
        file = folder / _FILE
        file.touch(mode=0o600)
        file.write_text(f"{_USER}:{key}\n")
        if uid is not None:
            os.chown(file, uid, uid)
            os.chown(folder, uid, uid)
        fdset, named = await _handed(session, folder)
        with contextlib.suppress(ControlError):  # of a move that was killed
            await session.execute("object-del", id=KEY)
        await session.execute("object-add", qom_type="tls-creds-psk", id=KEY, dir=named, endpoint=end)
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(ControlError):
            await session.execute("object-del", id=KEY)
        if fdset >= 0:
            with contextlib.suppress(ControlError):
                await remove_fd(session, fdset)


async def _handed(session: Session, folder: Path) -> tuple[int, str]:
    """The set in which QEMU has the folder open, and the path by which it finds that."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fdset, theirs = await add_fd_numbered(session, opened)
    finally:
        os.close(opened)
    return fdset, f"/dev/fd/{theirs}"
