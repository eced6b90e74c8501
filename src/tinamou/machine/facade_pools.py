"""The pools machines can be taken from, asynchronous: one of this program, and those that commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from tinamou.images.progress import Progress, silent
from tinamou.machine.connected import READY_SECONDS, Connected
from tinamou.machine.facade import AsyncMachine
from tinamou.machine.of_host import of_host
from tinamou.system.paths import this_host

if TYPE_CHECKING:
    from tinamou.machine.pool import ForkPool
    from tinamou.snapshots.checkpoint import Checkpoint

__all__ = ["TAKE_SECONDS", "AsyncPool", "AsyncSharedPool"]

TAKE_SECONDS = 60.0
"""How long a machine of a pool is waited for."""


@of_host
class AsyncPool:
    """``size`` machines waiting to be taken. All of them are gone when the block, or the process, ends.

    ``of`` is a checkpoint, or an image, which is booted once and kept as a warm checkpoint; ``settings`` are the fields of
    a machine file; without ``net`` they have no network. ``bound`` limits what the waiting machines may occupy together
    ("500M"): above it none is added. ``timeout`` is how long the guest may take to boot, in seconds.
    """

    def __init__(
        self,
        of: Checkpoint | str = "tiny",
        size: int = 4,
        *,
        bound: str = "",
        timeout: float = READY_SECONDS,
        progress: Progress = silent,
        **settings: Any,
    ) -> None:
        from tinamou.machine.pool import ForkPool

        self._host = this_host()
        self._pool: ForkPool = ForkPool(of, size, bound=bound, timeout=timeout, progress=progress, **settings)

    @property
    def waiting(self) -> int:
        """How many machines wait now."""
        return self._pool.waiting

    async def start(self) -> None:
        """Fill the pool. Raises what booting, saving and forking raise."""
        await self._pool.start()

    async def take(self) -> AsyncMachine:
        """A running machine nobody else has, which the taker ends; another takes its place in the background.

        Raises StateError when the pool is closed, and the error of the last attempt when none could be started.
        """
        from tinamou.snapshots.fork import hand_out

        restored = await self._pool.claim()
        await hand_out(restored)
        return AsyncMachine.around(Connected.of_fork(restored))

    async def close(self) -> None:
        """End the machines that wait."""
        await self._pool.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


@of_host
class AsyncSharedPool:
    """A pool made by ``tinamou pool create``, by its name: ``await AsyncSharedPool("web").take()``.

    ``progress`` is told what must be said of a machine that is taken, such as an address its guest did not get.
    """

    def __init__(self, name: str, *, progress: Progress = silent) -> None:
        self.name = name
        self._progress = progress
        self._host = this_host()

    async def take(self, timeout: float = TAKE_SECONDS) -> AsyncMachine:
        """A running machine nobody else has; gone when it is left, or this process ends.

        Waits up to ``timeout`` seconds for one. Raises StateError, and what starting the last one raised.
        """
        from tinamou.machine.pooled import PoolClient

        restored, ended = await PoolClient(self.name).claim(timeout)
        for note in restored.record.notes:
            self._progress(note, None)
        return AsyncMachine.around(Connected.of_fork(restored, ended))
