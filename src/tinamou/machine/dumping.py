"""A guest's memory and registers as a file that gdb and crash open, written by QEMU through a pipe.

Through a pipe, because QEMU may make no file longer than its disks need, has no word to cancel a dump, and ends one whose
reader is gone: so the file is ours, and stopping to read is how it is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
from pathlib import Path
from typing import Literal

from tinamou.control import Listener, Session, commands
from tinamou.control.answers import number, record
from tinamou.errors import ControlError, Problem, SpecError
from tinamou.images.progress import Progress, silent
from tinamou.machine.connected import Connected
from tinamou.machine.encrypted import refuse
from tinamou.system.closing import Closing, IfFailed
from tinamou.system.new_file import new_file

__all__ = ["Format", "dump"]

Format = Literal["elf", "kdump-zlib", "kdump-lzo", "kdump-snappy"]
_PIECE = 1 << 20
_SECONDS_TO_FAIL = 60.0
"""How long QEMU may take to see that nobody reads any more, and let the guest run on."""


async def dump(machine: Connected, file: Path, *, format: Format = "elf", progress: Progress = silent) -> int:
    """Write a running guest's memory and registers into a file; its size. The guest stands still meanwhile.

    An older file of that name is replaced when all is written; what is no regular file is refused.

    ``elf`` is for gdb, with holes where memory is empty; the others are compressed, for crash (makedumpfile's flattened
    format). A cancelled one leaves no file, and the guest runs on. Raises StateError, SpecError for a format that this QEMU
    does not write, OSError, ControlError.
    """
    refuse(machine.record, "dumped")
    session = await machine.session()
    offered = str(record(await session.execute("query-dump-guest-memory-capability")).get("formats"))
    if f"'{format}'" not in offered:
        problem = Problem("format", format, "this QEMU does not write it", f"one of {offered}")
        raise SpecError(f"{machine.name} cannot be dumped so", problems=[problem])
    with new_file(file, force=True) as target:
        await _written(session, target, format, progress)
        await asyncio.to_thread(os.fsync, target)
        return os.fstat(target).st_size


async def _written(session: Session, target: int, format: str, progress: Progress) -> None:
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # more than an ordinary user may have
        fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, _PIECE)
    with session.listen("DUMP_COMPLETED") as ended:
        stopped = threading.Event()
        with IfFailed(os.close, ours):
            with Closing(theirs):
                await commands.getfd(session, theirs, "dump")
            how = {"paging": False, "protocol": "fd:dump", "detach": True, "format": format}
            await session.execute("dump-guest-memory", how)
        copying = asyncio.ensure_future(asyncio.to_thread(_copy, ours, target, stopped))
        try:
            await _told(session, copying, progress)
        except BaseException:
            stopped.set()
            await asyncio.shield(asyncio.ensure_future(_failed(copying, ended)))
            raise
        await _came_to_its_end(session, ended)


async def _told(session: Session, copying: asyncio.Future[None], progress: Progress) -> None:
    """Say how far it is until all is copied."""
    while not (await asyncio.wait([copying], timeout=0.5))[0]:
        now = record(await session.execute("query-dump"))
        done, total = number(now, "completed", 0, least=0), number(now, "total", 0, least=0)
        progress("dumping its memory", done / total if total else None)
    copying.result()


async def _failed(copying: asyncio.Future[None], ended: Listener) -> None:
    with contextlib.suppress(OSError):
        await copying
    with contextlib.suppress(TimeoutError, ControlError):
        await ended.next(_SECONDS_TO_FAIL)


async def _came_to_its_end(session: Session, ended: Listener) -> None:
    event = await ended.next(_SECONDS_TO_FAIL)
    error = event.data.get("error")
    if error:
        raise ControlError("QEMU did not dump the machine's memory", why=str(error))


def _copy(source: int, target: int, stopped: threading.Event) -> None:
    """All that comes, empty pieces as holes; ends early when told, or when no more can be written. Closes ``source``."""
    with Closing(source):
        empty, end = bytes(_PIECE), 0
        while not stopped.is_set() and (piece := os.read(source, _PIECE)):
            if piece != empty[: len(piece)]:
                done = 0
                while done < len(piece):
                    done += os.pwrite(target, piece[done:], end + done)
            end += len(piece)
        os.ftruncate(target, end)
