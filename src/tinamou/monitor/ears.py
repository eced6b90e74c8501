"""Hears what QEMU tells by itself, on the owner's monitor of machines nobody attends, and leaves it when it is wanted."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable

from tinamou.control import Event
from tinamou.control.monitors import owners_turn
from tinamou.control.session import connect
from tinamou.errors import ControlError
from tinamou.facts import files
from tinamou.state.record import Record

__all__ = ["HEARD", "Ears"]

HEARD = (
    "BALLOON_CHANGE",
    "BLOCK_IO_ERROR",
    "GUEST_PANICKED",
    "MEMORY_FAILURE",
    "RESET",
    "RESUME",
    "SHUTDOWN",
    "STOP",
    "WATCHDOG",
)
"""The events that may mean that something begins or ends to be wrong (source: QEMU QMP reference manual)."""

_CONNECT_SECONDS = 2.0
_WANTED_SECONDS = 0.1
_REMEMBERED_SECONDS = 600.0


class Ears:
    """One listener for each machine that runs and is attended by nobody; ``woken`` is set when one has heard something."""

    def __init__(self) -> None:
        self.woken: asyncio.Event = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, deque[tuple[float, str]]] = {}

    def follow(self, records: Iterable[Record]) -> None:
        """Listen to these machines and no others; one that could not be listened to is tried again."""
        wanted = {record.name: record for record in records if record.running and not record.owned}
        for name in [name for name, task in self._tasks.items() if task.done() or name not in wanted]:
            self._tasks.pop(name).cancel()
        for name, record in wanted.items():
            if name not in self._tasks:
                self._tasks[name] = asyncio.ensure_future(self._listen(record))

    def failed(self, name: str) -> tuple[str, ...]:
        """The failed requests of a machine's disks over the last ten minutes, each way of failing once."""
        recent = [text for at, text in self._failed.get(name, ()) if time.monotonic() - at < _REMEMBERED_SECONDS]
        return tuple(dict.fromkeys(recent))

    async def close(self) -> None:
        """Stop listening."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    async def _listen(self, record: Record) -> None:
        """Until the machine ends, or somebody wants the monitor. Suspending a machine does, and so does a checkpoint."""
        turn = owners_turn(record.directory)
        hearing = asyncio.ensure_future(self._hear(record))
        try:
            while not hearing.done() and not turn.wanted():
                await asyncio.wait([hearing], timeout=_WANTED_SECONDS)
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)

    async def _hear(self, record: Record) -> None:
        try:
            path = f"{record.directory}/{files.QMP}"
            session = await connect(path, alive=lambda: record.running, timeout=_CONNECT_SECONDS)
        except ControlError:  # its owner holds it, or it has just ended
            return
        async with session:
            with session.listen(*HEARD) as events:
                async for event in events:
                    self.note(record.name, event)
            if session.broken is None:  # else there is nothing new to be seen of it
                self.woken.set()

    def note(self, name: str, event: Event) -> None:
        """Take up an event of a machine. A request for which it stands still has not failed yet: it is tried again."""
        if event.name == "BLOCK_IO_ERROR" and event.data.get("action") != "stop":
            known = self._failed.setdefault(name, deque(maxlen=64))
            known.append((time.monotonic(), _told(event)))
        self.woken.set()


def _told(event: Event) -> str:
    """``write to disk0: no space left``."""
    data = event.data
    where = data.get("qom-path") or data.get("node-name") or data.get("device") or "a disk"
    name = str(where).removeprefix("/machine/peripheral/").split("/")[0].removesuffix("-dev")
    return f"{data.get('operation', 'a request')} of {name}: {data.get('reason', 'failed')}"
