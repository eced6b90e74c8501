"""Long operations on image files through qemu-img, with progress, ended with the task or process that wants them."""

from __future__ import annotations

import re
from pathlib import Path

from tinamou.errors import ImageError
from tinamou.images.progress import Progress, silent
from tinamou.system.exec import CommandError, find_tool
from tinamou.system.exec_async import run_async

__all__ = ["offline"]

_PERCENT = re.compile(rb"\((\d+\.\d+)/100%\)")


async def offline(argv: list[str], what: str, *, progress: Progress = silent, cwd: Path | None = None) -> None:
    """Run a qemu-img command that prints its progress (``-p``). Raises ImageError.

    It is ended with the calling task, and when this process is killed: nobody would know of it any more.
    """

    def hear(piece: bytes) -> None:
        if found := _PERCENT.findall(piece):
            progress(what, float(found[-1]) / 100)

    try:
        tied = [find_tool("setpriv") or "setpriv", "--pdeathsig", "KILL", "--", *argv]
        await run_async(tied, hear=hear, cwd=str(cwd) if cwd else None)
    except CommandError as error:
        lines = error.stderr.strip().splitlines()
        fix = "free some space and do it again; nothing is lost"
        raise ImageError(f"{what} failed", why=lines[-1] if lines else str(error), fix=fix) from error
