"""Files of the user's that QEMU, which is another user, has to open by itself: the right to, and taking it away again."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from tinamou.blueprint import LendFile
from tinamou.errors import PrepareError
from tinamou.prepare.journal import Entry, Journal
from tinamou.state import shared
from tinamou.system import acl
from tinamou.system.closing import Closing

__all__ = ["lend", "take_back"]


def lend(step: LendFile, journal: Journal) -> None:
    """Let the machine's user open it. Raises PrepareError where its file system has no such rights; OSError."""
    with _opened(step.path) as (file, place):
        journal.take("lent", lasting=True, path=step.path, place=place, user=step.owner)
        try:
            acl.lend(file, step.owner, acl.READ_WRITE if step.write else acl.READ)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            why = "QEMU runs as a user of its own, and the file system keeps no list of users for a file (acl(5))"
            raise PrepareError(
                f"{step.path} cannot be opened to QEMU", why=why, fix="put it on ext4, xfs or btrfs"
            ) from error


def take_back(entry: Entry) -> None:
    """Undoes `lend`; a file that has taken its name since is left alone. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), _opened(str(entry["path"])) as (file, place):
        if place == entry["place"]:
            acl.take_back(file, int(str(entry["user"])))


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[int, list[int]]]:
    """The file and what tells it from others, for one command at a time: a list is read, changed and written."""
    with Closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)) as file, shared.held():
        status = os.fstat(file)
        yield file, [status.st_dev, status.st_ino]
