"""What was probed once and need not be probed again: JSON files that are believed only while their subject is unchanged."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tinamou.facts.stored import Plain
from tinamou.system.paths import cache_dir
from tinamou.system.replaced import replace_text

__all__ = ["FORMAT", "binary_identity", "load", "store"]

FORMAT = 4
"""Goes up whenever the shape or the meaning of stored facts changes."""

_Fact = TypeVar("_Fact")


def binary_identity(binary: str) -> list[Plain]:
    """Resolved path, size, mtime, inode, and for a wrapper script its content. Raises OSError.

    A script that starts another binary is known by its own text alone: change the script when its target changes.
    """
    path = os.path.realpath(binary)
    stat = Path(path).stat()
    with Path(path).open("rb") as file:
        start = file.read(2)
        content = zlib.crc32(file.read(1 << 20)) if start == b"#!" else 0
    return [binary, path, stat.st_size, stat.st_mtime_ns, stat.st_ino, content]


def _file(kind: str, subject: str) -> Path:
    return cache_dir() / "facts" / f"{kind}-{Path(subject).name}-{zlib.crc32(subject.encode()):08x}.json"


def load(kind: str, subject: str, identity: list[Plain], build: Callable[[Plain], _Fact]) -> _Fact | None:
    """The facts stored for ``subject`` while its identity was the same; None when there are none, or damaged ones."""
    try:
        head, _, body = _file(kind, subject).read_bytes().partition(b"\n")
        if json.loads(head) != {"format": FORMAT, "identity": identity, "crc": zlib.crc32(body)}:
            return None
        return build(json.loads(body))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def store(kind: str, subject: str, identity: list[Plain], plain: Plain) -> None:
    """Keep facts for the next time, atomically; a cache that cannot be written is left alone."""
    body = json.dumps(plain, separators=(",", ":"))
    told = {"format": FORMAT, "identity": identity, "crc": zlib.crc32(body.encode())}
    target = _file(kind, subject)
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_text(target, f"{json.dumps(told, separators=(',', ':'))}\n{body}", mode=0o644)
