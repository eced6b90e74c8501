"""Frozen files copied into a backup in one reading: put on another file, summed, and on their way to the disk meanwhile.

The SHA-256 is that of what was read and is to be there, not of what is read back: a copy that went wrong fails when it is
verified.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tinamou.errors import ImageError
from tinamou.images.progress import Progress, silent
from tinamou.system.closing import Closing
from tinamou.system.durable import sync_file
from tinamou.system.extents import extents
from tinamou.system.lock import given_up
from tinamou.system.loop_thread import ended, in_thread
from tinamou.system.qcow2 import Qcow2Error, first_cluster, put_on

__all__ = ["Settling", "copy_overlay"]

_PIECE, _BLOCK = 4 << 20, 4096
_ZEROS, _EMPTY = bytes(_PIECE), bytes(_BLOCK)
_UNSETTLED = 64 << 20
"""Bytes that are written before the disk is asked to take them."""


class Settling:
    """Has the disk take what others write to a file while they write it, so that little is left to wait for at the end."""

    def __init__(self, path: Path, progress: Progress = silent) -> None:
        self._path, self._progress = path, progress
        self._under_way: asyncio.Future[None] | None = None

    def hear(self, text: str, fraction: float | None) -> None:
        """The writer came further. Raises OSError when the disk did not take what it was given before."""
        self._progress(text, fraction)
        if self._under_way is None or self._under_way.done():
            if self._under_way is not None:
                self._under_way.result()
            self._under_way = asyncio.ensure_future(asyncio.to_thread(sync_file, self._path))

    async def settled(self) -> None:
        """Everything is on stable storage. Raises OSError."""
        if self._under_way is not None:
            await asyncio.shield(self._under_way)
        await in_thread(sync_file, self._path)

    async def left(self) -> None:
        """Nobody asks any more; what is under way is waited for."""
        if self._under_way is not None:
            await ended(self._under_way)


def copy_overlay(source: Path, target: Path, below: str) -> str:
    """Copy a qcow2 file to a new one that rests on the qcow2 file ``below`` (from the target's folder); its SHA-256.

    Holes and blocks of zeros are holes in the copy, which is on stable storage when this returns. Raises ImageError for a
    header that cannot be changed so or a file that changes meanwhile, OSError.
    """
    with Closing(os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)) as reading:
        status = os.fstat(reading)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{source} is no plain file", why="something else was put in its place")
        try:
            head = put_on(first_cluster(reading), below, "qcow2")
        except Qcow2Error as error:
            raise ImageError(f"{source} cannot be put on {below}", why=str(error)) from error
        with Closing(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)) as writing:
            os.ftruncate(writing, status.st_size)
            with ThreadPoolExecutor(2) as pool:
                return _Copy(reading, writing, pool, source).whole(head, status.st_size)


class _Copy:
    """One copying: a piece is summed while it is written and the next one is read."""

    def __init__(self, reading: int, writing: int, pool: ThreadPoolExecutor, source: Path) -> None:
        self._reading, self._writing, self._pool, self._source = reading, writing, pool, source
        self._digest = hashlib.sha256()
        self._summing: Future[None] | None = None
        self._syncing: Future[None] | None = None
        self._unsettled = 0

    def whole(self, head: bytes, size: int) -> str:
        """Copy ``head`` and what follows it in the source."""
        self._take(head, 0)
        at = len(head)
        for begin, end in _data(self._reading, at, size):
            self._skip(begin - at)
            for at in range(begin, end, _PIECE):
                self._take(self._read(at, min(_PIECE, end - at)), at)
            at = end
        self._skip(size - at)
        if os.fstat(self._reading).st_size != size:  # what was cut off reads as a hole
            raise ImageError(
                f"{self._source} changed its length while it was copied", fix="tinamou check shows what is left"
            )
        self._settle(last=True)
        self._summed()
        return self._digest.hexdigest()

    def _read(self, at: int, size: int) -> bytes:
        if given_up.get()():
            raise ImageError(f"{self._source} is not copied any more", why="nobody waits for it")
        piece = os.pread(self._reading, size, at)
        while len(piece) < size:
            more = os.pread(self._reading, size - len(piece), at + len(piece))
            if not more:
                raise ImageError(
                    f"{self._source} changed its length while it was copied", fix="tinamou check shows what is left"
                )
            piece += more
        return piece

    def _take(self, piece: bytes, at: int) -> None:
        self._sum(piece)
        view = memoryview(piece)
        for begin, end in _written(piece):
            self._write(view[begin:end], at + begin)
            self._unsettled += end - begin
        self._settle()

    def _write(self, view: memoryview, at: int) -> None:
        while view:
            done = os.pwrite(self._writing, view, at)
            view, at = view[done:], at + done

    def _skip(self, size: int) -> None:
        for at in range(0, size, _PIECE):
            self._sum(_ZEROS if size - at >= _PIECE else _ZEROS[: size - at])

    def _sum(self, piece: bytes) -> None:
        self._summed()
        self._summing = self._pool.submit(self._digest.update, piece)

    def _summed(self) -> None:
        if self._summing is not None:
            self._summing.result()

    def _settle(self, *, last: bool = False) -> None:
        """Have the disk take what was written; the last time, wait for it."""
        if last or (self._unsettled >= _UNSETTLED and (self._syncing is None or self._syncing.done())):
            if self._syncing is not None:
                self._syncing.result()
            self._syncing, self._unsettled = self._pool.submit(os.fdatasync, self._writing), 0
        if last and self._syncing is not None:
            self._syncing.result()


def _data(descriptor: int, start: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file of that size that hold data, from ``start`` on."""
    for begin, end in extents(descriptor, start):
        if begin >= size:
            return
        yield begin, min(end, size)


def _written(piece: bytes) -> Iterator[tuple[int, int]]:
    """The parts of a piece to write: all but blocks of zeros, from the first one on."""
    begin = None
    for at in range(0, len(piece), _BLOCK):
        if not piece.startswith(_EMPTY, at):
            begin = at if begin is None else begin
        elif begin is not None:
            yield begin, at
            begin = None
    if begin is not None:
        yield begin, len(piece)
