"""A key that two QEMUs share for one move: what goes between them is encrypted with it, and only they take part.

TLS with a pre-shared key needs no certificate and no authority (source: QEMU, crypto/tlscredspsk.c; RFC 4279).
QEMU reads the key from a folder that it is handed open: behind its walls it finds no other.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from tinamou.control import Session
from tinamou.control.commands import add_fd_numbered, remove_fd
from tinamou.errors import ControlError
from tinamou.system.closing import Closing

__all__ = ["KEY", "shared_key"]

KEY = "move-key"
"""What QEMU calls it."""
_FILE, _USER = "keys.psk", "qemu"
"""Names QEMU has for the file, and for whoever has the key where nothing else is said."""
_AES = "NORMAL:-CIPHER-ALL:+AES-128-GCM:+CHACHA20-POLY1305"
"""What GnuTLS is to prefer on a processor that has AES. By itself it takes ChaCha20, which it knows in plain C alone and
which costs four times as much: its first choice, AES-256, goes with SHA-384, and such a key with SHA-256."""
_GROUP_FILE, _GROUP_SINCE = "dh-params.pem", (10, 2, 0)
_GROUP = """-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""
"""ffdhe2048 (RFC 7919), for a QEMU before 10.2: without a file it looks for a prime of its own while all else waits."""


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
        if end == "server" and session.version < _GROUP_SINCE:
            (folder / _GROUP_FILE).write_text(_GROUP)
        fdset, named = await _handed(session, folder)
        with contextlib.suppress(ControlError):  # of a move that was killed
            await session.execute("object-del", id=KEY)
        creds = {"qom-type": "tls-creds-psk", "id": KEY, "dir": named, "endpoint": end}
        if end == "client" and _has_aes():
            creds["priority"] = _AES
        await session.execute("object-add", creds)
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
    with Closing(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as opened:
        fdset, theirs = await add_fd_numbered(session, opened)
    return fdset, f"/dev/fd/{theirs}"


def _has_aes() -> bool:
    """Whether this processor encrypts by itself: the client's wish is what is done."""
    return re.search(r"^(flags|Features)\s*:.*\baes\b", Path("/proc/cpuinfo").read_text(), re.M) is not None
