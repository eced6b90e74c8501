"""Hears what QEMU tells by itself, on the owner's monitor of machines nobody attends, and leaves it when it is wanted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable

from tinamou.control import Event, Session
from tinamou.control.monitors import owners_turn
from tinamou.control.session import connect
from tinamou.errors import ControlError
from tinamou.facts import files
from tinamou.state.record import Record
from tinamou.system.openings import Openings
from tinamou.system.turns import Turn

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
        self._sessions: dict[str, Session] = {}
        self._told: Counter[str] = Counter()
        self._openings: Openings | None = None

    def session(self, name: str) -> Session | None:
        """The session by which a machine is listened to, where it is: commands of a moment can be run on it."""
        return self._sessions.get(name)

    def told(self, name: str) -> int:
        """How much a machine's QEMU has told so far: another number than before, and something may have changed."""
        return self._told[name]

    def follow(self, records: Iterable[Record]) -> None:
        """Listen to these machines and no others; one that could not be listened to is tried again."""
        heard = {name for name, task in self._tasks.items() if not task.done()}
        given = {record.name: record for record in records}
        wanted = {name: one for name, one in given.items() if name in heard or (one.running and not one.owned)}
        for name in [name for name in self._tasks if name not in heard or name not in wanted]:
            self._tasks.pop(name).cancel()
        for name in self._told.keys() - given.keys():
            del self._told[name]
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
        if self._openings is not None:
            asyncio.get_running_loop().remove_reader(self._openings.descriptor)
            self._openings.close()
            self._openings = None

    async def _listen(self, record: Record) -> None:
        """Until the machine ends, or somebody wants the monitor. Suspending a machine does, and so does a checkpoint."""
        wanted = asyncio.ensure_future(self._wanted(owners_turn(record.directory)))
        hearing = asyncio.ensure_future(self._hear(record))
        try:
            await asyncio.wait([hearing, wanted], return_when=asyncio.FIRST_COMPLETED)
        finally:
            hearing.cancel()
            wanted.cancel()
            await asyncio.gather(hearing, wanted, return_exceptions=True)

    async def _wanted(self, turn: Turn) -> None:
        """Return when somebody wants the monitor: at once where the kernel tells, else it is looked for again and again."""
        try:
            with turn.sign() as (path, shown):
                told, openings = asyncio.Event(), self._opened()
                number = openings.listen(path, told.set)
                try:
                    if not shown():
                        await told.wait()
                finally:
                    openings.forget(number)
        except OSError:  # no more of it for this user, or a folder that is another's
            while not turn.wanted():  # noqa: ASYNC110
                await asyncio.sleep(_WANTED_SECONDS)

    def _opened(self) -> Openings:
        """What tells of files that are opened. Raises OSError."""
        if self._openings is None:
            self._openings = Openings()
            asyncio.get_running_loop().add_reader(self._openings.descriptor, self._openings.hear)
        return self._openings

    async def _hear(self, record: Record) -> None:
        try:
            path = f"{record.directory}/{files.QMP}"
            session = await connect(path, alive=lambda: record.running, timeout=_CONNECT_SECONDS)
        except ControlError:  # its owner holds it, or it has just ended
            return
        async with session:
            with session.listen(*HEARD) as events:
                self._sessions[record.name] = session
                self._told[record.name] += 1  # what happened before is not known
                try:
                    async for event in events:
                        self.note(record.name, event)
                finally:
                    self._sessions.pop(record.name, None)
            if session.broken is None:  # else there is nothing new to be seen of it
                self.woken.set()

    def note(self, name: str, event: Event) -> None:
        """Take up an event of a machine. A request for which it stands still has not failed yet: it is tried again."""
        if event.name == "BLOCK_IO_ERROR" and event.data.get("action") != "stop":
            known = self._failed.setdefault(name, deque(maxlen=64))
            known.append((time.monotonic(), _told(event)))
        self._told[name] += 1
        self.woken.set()


def _told(event: Event) -> str:
    """``write to disk0: no space left``."""
    data = event.data
    where = data.get("qom-path") or data.get("node-name") or data.get("device") or "a disk"
    name = str(where).removeprefix("/machine/peripheral/").split("/")[0].removesuffix("-dev")
    return f"{data.get('operation', 'a request')} of {name}: {data.get('reason', 'failed')}"
