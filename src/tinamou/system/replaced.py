"""Small files replaced as a whole: who reads one meanwhile sees the old text or the new one, never a piece."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

from tinamou.system.acl import keep

__all__ = ["replace_text"]

_count = itertools.count()


def replace_text(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Give a file this text, as a whole; the name it has until then is nobody else's; who may read it stays. Raises OSError.

    It is not written through to the disk: it outlives every process, not a power cut.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{next(_count)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:  # a request to end may come as soon as the file is there
        descriptor = os.open(part, flags, mode)
        with os.fdopen(descriptor, "w") as file:
            keep(path, descriptor)
            file.write(text)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
