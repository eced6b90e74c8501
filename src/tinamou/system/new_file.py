"""Large files that a user names: written beside their place under a name of nobody else's, and put there once whole."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from tinamou.errors import StateError

__all__ = ["new_file", "refuse_target"]


@contextlib.contextmanager
def new_file(target: Path, *, force: bool = False) -> Iterator[int]:
    """The descriptor of a file, mode 0600, that has its name when this block ends; none is left where the block fails.

    ``force`` replaces a regular file that is there, and nothing else: a device, a pipe, a link is never what it is written
    over. Raises StateError for those, and for any file without ``force``; OSError.
    """
    refuse_target(target, force=force)
    part, descriptor = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part"), -1
    try:  # a request to end may come as soon as the file is there
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        yield descriptor
        refuse_target(target, force=force)  # what came there meanwhile is nobody's to lose
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def refuse_target(target: Path, *, force: bool) -> None:
    """Raises StateError for what `new_file` would not write over: asked before long work begins."""
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise StateError(f"{target} is no regular file, and is not written over", fix="name another file")
    if not force:
        raise StateError(f"{target} exists already", fix="pass --force to replace it, or name another file")
