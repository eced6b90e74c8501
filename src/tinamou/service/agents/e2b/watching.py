"""Changes in a folder of a guest, found by looking again and again: every guest has find(1) and stat(1), few have more."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator, Mapping

from tinamou.errors import TinamouError
from tinamou.service.agents.listing import Found, Run, walk

__all__ = ["Change", "Watch", "changes"]

Change = dict[str, str]
"""A `filesystem.FilesystemEvent` as JSON."""

_PAUSE, _DEEPEST, _KEPT = 0.5, 64, 10_000


class Watch:
    """Looks at a folder of a guest every half a second. ``changed`` is set when there is something to be taken.

    It ends by itself when the guest is gone; ``error`` says why then.
    """

    def __init__(self, run: Run, path: str, *, deep: bool) -> None:
        self._run, self._path, self._depth = run, path, _DEEPEST if deep else 1
        self._found: list[Change] = []
        self.changed: asyncio.Event = asyncio.Event()
        self.error: TinamouError | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take the first look: what changes after this is told. Raises GuestError."""
        before = await self._look()
        self._task = asyncio.create_task(self._watch(before))

    def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    def take(self) -> list[Change]:
        """What has happened since the last time."""
        found, self._found = self._found, []
        self.changed.clear()
        return found

    async def _look(self) -> dict[str, Found]:
        return {one.path.removeprefix(f"{self._path}/"): one for one in await walk(self._run, self._path, self._depth)}

    async def _watch(self, before: dict[str, Found]) -> None:
        try:
            while True:
                await asyncio.sleep(_PAUSE)
                now = await self._look()
                self._found = [*self._found, *changes(before, now)][-_KEPT:]
                if self._found:
                    self.changed.set()
                before = now
        except TinamouError as error:
            self.error = error
            self.changed.set()


def changes(before: Mapping[str, Found], now: Mapping[str, Found]) -> Iterator[Change]:
    """What must have happened between two looks, by name."""
    moved = {one.inode: name for name, one in before.items() if name not in now}
    for name, one in now.items():
        old = before.get(name)
        if old is None and one.inode in moved:
            yield _event(moved.pop(one.inode), "RENAME")
            yield _event(name, "CREATE")
        elif old is None:
            yield _event(name, "CREATE")
            if one.size and stat.S_ISREG(one.mode):
                yield _event(name, "WRITE")
        elif stat.S_ISREG(one.mode) and (old.size, old.modified, old.inode) != (one.size, one.modified, one.inode):
            yield _event(name, "WRITE")
        elif (old.mode, old.owner, old.group) != (one.mode, one.owner, one.group):
            yield _event(name, "CHMOD")
    for name in moved.values():
        yield _event(name, "REMOVE")


def _event(name: str, kind: str) -> Change:
    return {"name": name, "type": f"EVENT_TYPE_{kind}"}
