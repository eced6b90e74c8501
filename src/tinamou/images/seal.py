"""Noticing that a file others rest on was changed or exchanged: a seal taken once, compared at each start."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from tinamou.errors import ImageError
from tinamou.system.closing import Closing
from tinamou.system.replaced import replace_text

__all__ = ["check_seals"]

_BLOCK = 4096
_SAMPLES = 64
_HEAD = 65536


def check_seals(record: Path, paths: Iterable[str]) -> None:
    """Compare files with their seals in ``record``; a file without one is sealed now.

    Length and modification time decide; when these differ, a digest over the beginning and 64 places spread over the file
    does, so that a copy is as good as the original. Raises ImageError naming the file that is another one.
    """
    known = _read(record)
    fresh = dict(known)
    for path in paths:
        length, modified = _stamp(path)
        seal = known.get(path)
        if seal and seal[:2] == [length, modified]:
            continue
        digest = _digest(path, length)
        if seal and seal[2] != digest:
            raise ImageError(
                f"{path} is not the file this disk was made on",
                why="it was written to or exchanged, and what rests on it reads as damaged now",
                fix="put the original file back; tinamou snapshot and tinamou backup keep copies of a machine's own disks",
            )
        fresh[path] = [length, modified, digest]
    if fresh != known and record.parent.is_dir():
        replace_text(record, json.dumps(fresh))


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = Path(path).stat()
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist", fix="put the file back, or restore a backup") from error
    return status.st_size, status.st_mtime_ns


def _digest(path: str, length: int) -> str:
    import hashlib

    digest = hashlib.blake2b(str(length).encode(), digest_size=16)
    with Closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as descriptor:
        digest.update(os.pread(descriptor, _HEAD, 0))
        for sample in range(_SAMPLES):
            digest.update(os.pread(descriptor, _BLOCK, length * sample // _SAMPLES))
    return digest.hexdigest()


def _read(record: Path) -> dict[str, list[int | str]]:
    try:
        return dict(json.loads(record.read_text()))
    except (FileNotFoundError, ValueError):
        return {}
