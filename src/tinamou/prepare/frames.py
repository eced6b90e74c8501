"""A file in memory that QEMU and a viewer on this host share: made, and removed when the machine ends."""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path

from tinamou.blueprint import MakeSharedFile
from tinamou.errors import PrepareError
from tinamou.prepare.journal import Entry, Journal
from tinamou.system import acl

__all__ = ["make", "remove"]


def make(step: MakeSharedFile, journal: Journal) -> None:
    """Make the file; it has its name once it is in the journal. It stays its maker's, so that the viewer cannot put another
    one in its place. Raises PrepareError for a user that is none, and where the name is taken; OSError."""
    path = Path(step.path)
    users = [step.owner] if step.owner is not None else []
    users += [_number(step.viewer)] if step.viewer else []
    made = os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(made, step.size)
        acl.allow(Path(f"/proc/self/fd/{made}"), dict.fromkeys(users, acl.READ_WRITE), {})
        journal.take("frames", path=step.path, inode=os.fstat(made).st_ino)
        os.link(f"/proc/self/fd/{made}", path, src_dir_fd=made, follow_symlinks=True)  # without a folder it follows none
    except FileExistsError as error:
        raise PrepareError(f"{path} is there already", fix="remove it, or give the machine another name") from error
    finally:
        os.close(made)


def _number(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise PrepareError(f"display.looking_glass_user: this host has no user {user}", fix="see: getent passwd") from error


def remove(entry: Entry) -> None:
    """Undoes `make`; a file of that name that somebody else made stays."""
    path = Path(str(entry["path"]))
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_ino == entry["inode"]:
            path.unlink()
