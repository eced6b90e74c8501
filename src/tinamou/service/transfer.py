"""Files between a guest and whoever calls: by a file on the host that has no name for long, so that memory is bounded.

A file is checked at both ends before the first byte of it is answered. Folders go as tar archives, which are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, StreamingResponse

from tinamou.errors import GuestError, Problem, SpecError, StateError
from tinamou.guest import copy
from tinamou.machine.waiting import Waiting
from tinamou.service.shared import existing
from tinamou.service.table import Asked
from tinamou.state.record import Record
from tinamou.system.closing import Closing, IfFailed
from tinamou.system.loop_thread import dropped
from tinamou.system.paths import state_dir

__all__ = ["get", "put"]

_PIECE = 256 << 10
_PATIENCE = 60.0
"""Seconds within which the next piece of what is sent must come."""
_OF_FREE = 0.9


async def _reached(asked: Asked) -> tuple[Record, Waiting]:
    """The machine once it runs, and the patience its guest is waited for with."""
    existing(asked.name)
    if not asked.query.path:
        raise SpecError("no file is named", problems=[Problem("path", None, "left out", "?path=/etc/hostname")])
    wait = Waiting(asked.name)
    record = await wait.started()
    if not record.agent:
        raise GuestError(f"Nothing in {record.name} can take a copy", why="the image has no guest agent")
    return record, wait


@contextlib.contextmanager
def _spool() -> Any:
    """A folder for one transfer, gone when the block ends."""
    place = state_dir() / "service/spool"
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


async def get(asked: Asked) -> Any:
    """A file of a guest (with ``Range``), or with ``archive`` a folder as a tar archive."""
    record, wait = await _reached(asked)
    if asked.query.archive:
        return await _archive(record, wait, asked.query.path)
    spool = contextlib.ExitStack()
    folder = spool.enter_context(_spool())
    async with IfFailed(asyncio.to_thread, spool.close):
        async with await wait.agent(record) as agent:
            done = await copy.out_of_guest(agent, asked.query.path, folder / "file", directory=record.directory)
        if not (folder / "file").is_file():
            raise GuestError(f"{asked.query.path} is a folder", fix="add archive=true, which answers a tar archive")
    told = {"x-tinamou-verified": "true" if done.verified else "false", "x-content-type-options": "nosniff"}
    told["content-type"] = "application/octet-stream"
    sent = BackgroundTask(spool.close)
    return FileResponse(folder / "file", headers=told, background=sent, filename=Path(asked.query.path).name)


async def _archive(record: Record, wait: Waiting, path: str) -> StreamingResponse:
    """The archive as the guest's tar makes it; what goes wrong before its first byte is an error, afterwards a cut."""
    reading, writing = os.pipe()
    reader = asyncio.StreamReader(limit=_PIECE)
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", 0)
    )
    copying = asyncio.ensure_future(_copied(record, wait, path, writing))

    async def ended() -> None:
        pipe.close()  # first: who writes must not wait for a reader that is gone
        await dropped(copying)

    async with IfFailed(ended):
        first = await reader.read(_PIECE)
        if not first:
            await copying

    async def sent() -> AsyncIterator[bytes]:
        piece = first
        try:
            while piece:
                yield piece
                piece = await reader.read(_PIECE)
            await copying
        finally:
            await ended()

    return StreamingResponse(sent(), media_type="application/x-tar")


async def _copied(record: Record, wait: Waiting, path: str, target: int) -> None:
    with Closing(target):
        async with await wait.agent(record) as agent:
            await copy.tar_out_of_guest(agent, path, target, directory=record.directory)


async def put(asked: Asked) -> Any:
    """Make the body a file of a guest, or with ``archive`` unpack the tar archive it is in a folder there."""
    record, wait = await _reached(asked)
    with _spool() as folder:
        free = os.statvfs(folder)
        size = await _received(asked, folder / "file", int(free.f_bavail * free.f_frsize * _OF_FREE))
        async with await wait.agent(record) as agent:
            if asked.query.archive:
                with Closing(os.open(folder / "file", os.O_RDONLY | os.O_CLOEXEC)) as source:
                    done = await copy.tar_into_guest(agent, source, asked.query.path, directory=record.directory)
            else:
                done = await copy.into_guest(agent, folder / "file", asked.query.path, directory=record.directory)
    return {"path": asked.query.path, "bytes": size, "verified": done.verified}


async def _received(asked: Asked, path: Path, most: int) -> int:
    """Write the body to a file; its size. Raises StateError where it is too much, or does not come."""
    count, pieces = 0, asked.request.stream().__aiter__()
    with path.open("wb") as file:
        while True:
            try:
                async with asyncio.timeout(_PATIENCE):
                    piece = await pieces.__anext__()
            except StopAsyncIteration:
                return count
            except (TimeoutError, ClientDisconnect):
                raise StateError("the file did not come whole", why=f"{count} bytes came, and no more") from None
            count += len(piece)
            if count > most:
                raise StateError("the file is too large", why=f"it would take more than {most} bytes of the host's disk")
            await asyncio.to_thread(file.write, piece)
