"""Long operations on image files through qemu-img, with progress, ended with the task or process that wants them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tinamou.errors import ImageError, if_full
from tinamou.images.progress import Progress, silent
from tinamou.images.qemu_img import MISSING, complaint
from tinamou.system.exec import CommandError, find_tool
from tinamou.system.exec_async import run_async
from tinamou.system.shut_in import ENVIRONMENT, leased, shut_in

__all__ = ["changed", "made", "offline", "read_through"]

from tinamou.system.closing import Closing, IfFailed

_PERCENT = re.compile(rb"\((\d{1,3}\.\d{1,2})/100%\)")
_PATIENCE = 3600.0
"""Seconds for the next percent of an image nobody vouches for; a slow disk of many terabytes takes half of that."""


async def offline(argv: list[str], what: str, *, progress: Progress = silent, cwd: Path | None = None) -> None:
    """Run a qemu-img command on files of our own that prints its progress (``-p``). Raises ImageError.

    It is ended with the calling task, and when this process is killed: nobody would know of it any more.
    """
    tied = [find_tool("setpriv") or "setpriv", "--pdeathsig", "KILL", "--", *argv]
    await _run(tied, what, progress, cwd=str(cwd) if cwd else None)


async def read_through(argv: Sequence[str], what: str, reads: Iterable[str], *, progress: Progress = silent) -> None:
    """The same on files nobody vouches for: it may open ``reads``, and has no right beyond. Raises ImageError."""
    await _shut_in(argv, what, progress, reads)


async def made(
    argv: Sequence[str], what: str, reads: Iterable[str], target: Path, *, mode: int = 0o644, progress: Progress = silent
) -> None:
    """The same, which makes the file ``target``. Raises ImageError; no target is left then."""
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with Closing(descriptor), IfFailed(target.unlink, missing_ok=True), leased(descriptor):
        await _shut_in(argv, what, progress, reads, [str(target)])


async def changed(argv: Sequence[str], what: str, reads: Iterable[str], file: str, *, progress: Progress = silent) -> None:
    """The same, which changes ``file`` with the rights of its owner. Raises ImageError."""
    await _shut_in(argv, what, progress, reads, [file], os.stat(file).st_uid)  # noqa: PTH116


async def _shut_in(
    argv: Sequence[str],
    what: str,
    progress: Progress,
    reads: Iterable[str],
    writes: Iterable[str] = (),
    owner: int | None = None,
) -> None:
    try:
        words = shut_in(argv, reads=list(reads), writes=list(writes), owner=owner)
        await _run(words, what, progress, environment=ENVIRONMENT, patience=_PATIENCE)
    except FileNotFoundError as error:
        raise ImageError(f"{what} failed", why=str(error), fix=MISSING) from error
    except TimeoutError as error:
        why = f"qemu-img came no percent further in {_PATIENCE:.0f} seconds"
        raise ImageError(f"{what} failed", why=why, fix="fetch the image again; a sound one is read faster") from error


async def _run(
    argv: Sequence[str],
    what: str,
    progress: Progress,
    *,
    cwd: str | None = None,
    environment: Mapping[str, str] | None = None,
    patience: float | None = None,
) -> None:
    def hear(piece: bytes) -> None:
        if found := _PERCENT.findall(piece):
            progress(what, float(found[-1]) / 100)

    try:
        await run_async(argv, hear=hear, cwd=cwd, environment=environment, patience=patience)
    except CommandError as error:
        why = complaint(error)
        raise ImageError(f"{what} failed", why=why, fix=if_full(why)) from error
