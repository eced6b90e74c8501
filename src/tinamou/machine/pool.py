"""Forks that wait: restored, given their identity, run warm and stopped; handed out in milliseconds, replaced meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any, Self

from tinamou.errors import StateError
from tinamou.images.progress import Progress, silent
from tinamou.machine.connected import READY_SECONDS
from tinamou.machine.forking import fork_many, notes_of
from tinamou.machine.reconcile import end_machine
from tinamou.snapshots.checkpoint import Checkpoint
from tinamou.snapshots.fork import Restored
from tinamou.spec import load_spec
from tinamou.system.loop_thread import in_thread
from tinamou.units import Size

__all__ = ["ForkPool"]

REFILL_AFTER = 0.05
"""Seconds a machine that was handed out has the host to itself before its successor starts."""


class ForkPool:
    """``size`` machines waiting to be taken. All of them are gone when the block, or the process, ends.

    ``of`` is a checkpoint, or an image, which is booted once and kept as a warm checkpoint; ``settings`` are the fields of
    a machine file; without ``net`` they have no network. ``bound`` limits what the waiting machines
    may occupy together: above it none is added. With ``lives_on`` machines do not die with this process: who is killed
    leaves them to the next command's `reconcile`.
    """

    def __init__(
        self,
        of: Checkpoint | str = "tiny",
        size: int = 4,
        *,
        bound: str = "",
        timeout: float = READY_SECONDS,
        progress: Progress = silent,
        lives_on: bool = False,
        **settings: Any,
    ) -> None:
        self._lives_on = lives_on
        self._of = of
        self._spec = load_spec({"image": of, "net": [], **settings}) if isinstance(of, str) else None
        self.size = size
        self._bound = Size.parse(bound) if bound else None
        self._timeout, self._progress = timeout, progress
        self._waiting: asyncio.Queue[Restored] = asyncio.Queue()
        self._filling: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many machines wait now."""
        return self._waiting.qsize()

    async def start(self) -> None:
        """Fill the pool. Raises what booting, saving and forking raise."""
        from tinamou.machine.warm import warm

        if self._spec is not None:
            self._of = await warm(self._spec, timeout=self._timeout, progress=self._progress)
        await self._fill(self.size)

    async def claim(self) -> Restored:
        """A machine that was waiting, still stopped; another takes its place in the background.

        Raises StateError when the pool is closed, and the error of the last attempt when none could be started.
        """
        if self._closed or isinstance(self._of, str):
            raise StateError("the pool is not open", fix="use it in a with-block")
        while True:
            if not self._waiting.qsize() and not self._filling:
                self._refill()
            restored = await self._next()
            asyncio.get_running_loop().call_later(REFILL_AFTER, self._refill)
            if restored.record.running:
                return restored
            await in_thread(_end, restored)

    async def close(self) -> None:
        """End the machines that wait."""
        self._closed = True
        for task in self._filling:
            task.cancel()
        await asyncio.gather(*self._filling, return_exceptions=True)
        while self._waiting.qsize():
            await in_thread(_end, self._waiting.get_nowait())

    async def _next(self) -> Restored:
        while not self._waiting.qsize():
            if self._failed is not None:
                error, self._failed = self._failed, None
                raise error
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self._waiting.get(), 0.1)
        return self._waiting.get_nowait()

    def _refill(self) -> None:
        if self._closed or self._waiting.qsize() + len(self._filling) >= self.size:
            return
        task = asyncio.ensure_future(self._fill(1))
        self._filling.add(task)
        task.add_done_callback(self._filled)

    def _filled(self, task: asyncio.Task[None]) -> None:
        self._filling.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed = error

    async def _fill(self, count: int) -> None:
        if self._bound is not None and self._waiting.qsize() and await asyncio.to_thread(self.occupied) > self._bound:
            return
        assert not isinstance(self._of, str)
        for restored in await fork_many(self._of, count, stopped=True, dies_with_parent=not self._lives_on):
            for note in notes_of([restored]):
                self._progress(note, None)
            self._waiting.put_nowait(restored)

    def occupied(self) -> int:
        """Bytes the waiting machines occupy: their shares of the pages they use (PSS)."""
        waiting = list(getattr(self._waiting, "_queue", ()))
        return sum(_share(restored.record.pid) for restored in waiting)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _share(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def _end(restored: Restored) -> None:
    restored.close()
    end_machine(restored.record)
