"""The sandboxes of this host: made, found, kept alive until their time is over, copied, saved, ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Literal, Self

from tinamou import late
from tinamou.errors import StateError, TinamouError
from tinamou.machine import checkpoints
from tinamou.machine.connected import Connected
from tinamou.operations import machines as lives
from tinamou.service.agents.e2b import making
from tinamou.service.agents.e2b.entries import Entry, Shelf, Snapshot, fresh_id, sandboxes_dir
from tinamou.service.agents.e2b.live import Live
from tinamou.service.agents.e2b.problems import RefusedError, gone
from tinamou.service.agents.e2b.templates import Template
from tinamou.snapshots.orphans import is_suspended
from tinamou.state import machines
from tinamou.state.record import Record, read
from tinamou.system.lock import exclusive
from tinamou.system.loop_thread import in_thread

__all__ = ["MOST", "Sandboxes", "State", "record_of"]

MOST = 100
"""Sandboxes at a time, where nobody says otherwise."""

State = Literal["running", "paused", "gone"]

_FORKED = "e2b-fork-"
"""Begins the names of checkpoints that are gone with the last sandbox forked from them."""
_LOCK_SECONDS, _AGAIN_SECONDS = 5.0, 10.0
_LONGEST_NAP = 3600.0

_log = logging.getLogger(__name__)


class Sandboxes:
    """All of them, ``most`` at a time, as long as the ``async with`` block lasts; their machines go on after it.

    Raises StateError where another process serves them already. Methods raise RefusedError and TinamouError.
    """

    def __init__(self, templates: dict[str, Template], *, most: int = MOST) -> None:
        self.templates: dict[str, Template] = templates
        self.most: int = most
        self._live: dict[str, Live] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._changed = asyncio.Event()
        self._end = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        folder = sandboxes_dir()
        try:
            self._end.enter_context(exclusive(folder / "lock", seconds=_LOCK_SECONDS))
        except StateError as error:
            raise StateError("another process serves the sandboxes of this state directory", why=error.why) from error
        self.entries: Shelf[Entry] = Shelf(folder, Entry)
        self.snapshots: Shelf[Snapshot] = Shelf(folder / "snapshots", Snapshot)
        for one in [one for one in self.entries if not one.ready or record_of(one) is None]:
            try:
                await self._remove(one)
            except TinamouError as error:
                _log.warning("what was made of sandbox %s before a crash is left: %s", one.id, error)
                self.entries.drop(one.id)
        watch = asyncio.create_task(self._watch_deadlines())
        self._end.push_async_callback(_cancelled, watch)
        return self

    async def __aexit__(self, *_: object) -> None:
        for live in self._live.values():
            live.close()
        self._live.clear()
        await self._end.aclose()

    def find(self, key: str, owner: str) -> Entry:
        """A sandbox of that owner. Raises RefusedError, 404."""
        entry = self.entries.get(key)
        if entry is None or entry.owner != owner or not entry.ready or self.state(entry) == "gone":
            raise RefusedError(404, f"sandbox {key[:64]} was not found")
        return entry

    def every(self, owner: str) -> Iterator[tuple[Entry, State]]:
        """Those of that owner that there are."""
        for one in self.entries:
            if one.owner == owner and one.ready and (state := self.state(one)) != "gone":
                yield one, state

    def made_by(self, owner: str, request: str) -> Entry | None:
        """The sandbox that this request of that owner has made already. Raises RefusedError, 409, while it is being made."""
        found = next((one for one in self.entries if request and (one.owner, one.request) == (owner, request)), None)
        if found is not None and not found.ready:
            raise RefusedError(409, "the sandbox of this Idempotency-Key is being made")
        return found if found is not None and self.state(found) != "gone" else None

    def state(self, entry: Entry) -> State:
        """Whether its machine runs, is suspended, or is neither: then it is no sandbox any more."""
        record = record_of(entry)
        if record is None:
            return "gone"
        return "running" if record.running else "paused" if is_suspended(record) else "gone"

    async def create(self, entry: Entry, template: Template, *, network: bool) -> Entry:
        """Make the machine of a new sandbox."""
        self._room(1)
        self.entries.put(entry)
        machine = None
        try:
            machine = await making.made(template, entry.machine, network=network)
            entry = self.entries.put(late.replace(entry, machine=machine.name))
            await making.stays(machine)
        except BaseException:
            self.entries.drop(entry.id)
            if machine is not None:
                await machine.end()
                await _machine_removed(machine.name)
            raise
        return self._begun(entry, machine)

    def _room(self, count: int) -> None:
        """Raises RefusedError where there are as many as there may be; a sandbox that is paused counts too."""
        have = len(list(self.entries))
        if have + count > self.most:
            raise RefusedError(
                429, f"there are {have} sandboxes, and {self.most} may be: end some", code="resource_exhausted"
            )

    def _begun(self, entry: Entry, machine: Connected) -> Entry:
        """Its time counts from now on: its maker is not to pay for how long that took."""
        now = time.time()
        span = entry.deadline - entry.started
        entry = self.entries.put(late.replace(entry, ready=True, started=now, deadline=now + span))
        self._live[entry.id] = Live(entry, machine)
        self._changed.set()
        return entry

    async def live(self, entry: Entry) -> Live:
        """A sandbox that runs. Raises RefusedError for one that does not."""
        record = record_of(entry)
        if record is None or not record.running or not entry.ready:
            self._drop(entry.id)
            raise gone(entry.id)
        live = self._live.get(entry.id)
        if live is None or live.pid != record.pid:
            self._drop(entry.id)
            live = self._live[entry.id] = Live(entry, Connected(record))
        live.entry = entry
        return live

    def until(self, entry: Entry, seconds: int, *, longer: bool = False) -> Entry:
        """Let it live for so many seconds from now on; with ``longer`` only where that is later."""
        deadline = time.time() + seconds
        if not (longer and deadline <= entry.deadline):
            entry = self.entries.put(late.replace(entry, deadline=deadline))
            self._changed.set()
        return entry

    async def connect(self, entry: Entry, seconds: int) -> tuple[Entry, bool]:
        """Let it live longer; one that is paused is taken up; whether it was."""
        async with self.turn(entry):
            paused = self.state(entry) == "paused"
            if paused:
                await lives.resume(entry.machine)
            return self.until(entry, seconds, longer=True), paused

    async def pause(self, entry: Entry) -> None:
        """Save it and end its QEMU. What ran for a client is ended. Raises RefusedError, 409, for one that is paused."""
        async with self.turn(entry):
            if self.state(entry) != "running":
                raise RefusedError(409, f"sandbox {entry.id} is paused already")
            self._drop(entry.id)
            await lives.suspend(entry.machine)
            self.entries.put(late.replace(entry, deadline=0.0))

    async def fork(self, entry: Entry, ids: Sequence[str], seconds: int) -> list[Entry]:
        """Copies of it at this moment, by those ids."""
        self._room(len(ids))
        async with self.turn(entry):
            live = await self.live(entry)
            await live.line()
            checkpoint = await making.saved(live.machine, f"{_FORKED}{secrets.token_hex(6)}")
        now = time.time()
        copy: dict[str, Any] = {
            "request": "",
            "checkpoint": checkpoint.name,
            "started": now,
            "deadline": now + seconds,
            "ready": False,
        }
        fresh = [late.replace(entry, id=key, machine=key, token=secrets.token_hex(32), **copy) for key in ids]
        try:
            self._room(len(ids))
            for one in fresh:
                self.entries.put(one)
            found = await making.forked(checkpoint, list(ids))
            return [self._begun(one, await making.stays(machine)) for one, machine in zip(fresh, found, strict=True)]
        except BaseException:
            for one in fresh:
                await self._remove(one)
            raise

    async def snapshot(self, entry: Entry, names: list[str]) -> Snapshot:
        """Its whole state, kept until it is removed."""
        key = fresh_id("snap")
        async with self.turn(entry):
            live = await self.live(entry)
            await live.line()
            await making.saved(live.machine, key)
        return self.snapshots.put(Snapshot(key, entry.owner, entry.id, time.time(), names, entry.user))

    async def forget(self, snapshot: Snapshot) -> None:
        """Remove a snapshot. Raises StateError while sandboxes made of it exist."""
        await in_thread(checkpoints.remove, snapshot.id)
        self.snapshots.drop(snapshot.id)

    def saved_as(self, name: str, owner: str) -> Snapshot | None:
        """The snapshot of that owner with this id or name, the newest one where several have it."""
        mine = [one for one in self.snapshots if one.owner == owner and name in (one.id, *one.names)]
        return max(mine, key=lambda one: one.created, default=None)

    async def kill(self, entry: Entry) -> None:
        """End it and remove its machine."""
        async with self.turn(entry):
            await self._remove(entry)

    @contextlib.asynccontextmanager
    async def turn(self, entry: Entry) -> AsyncIterator[None]:
        """One change of a sandbox after another. Raises RefusedError where it is gone when it is our turn."""
        async with self._turns.setdefault(entry.id, asyncio.Lock()):
            if self.entries.get(entry.id) is None:
                raise RefusedError(404, f"sandbox {entry.id} was not found")
            yield

    def _drop(self, key: str) -> None:
        if (live := self._live.pop(key, None)) is not None:
            live.close()

    async def _remove(self, entry: Entry) -> None:
        self._drop(entry.id)
        if record_of(entry) is not None:
            await _machine_removed(entry.machine)
        self.entries.drop(entry.id)
        self._turns.pop(entry.id, None)
        used = {one.checkpoint for one in self.entries}
        for one in await in_thread(checkpoints.every):
            if one.name.startswith(_FORKED) and one.name not in used:
                with contextlib.suppress(StateError):  # a snapshot's disks rest on it
                    await in_thread(checkpoints.remove, one.name)

    async def _watch_deadlines(self) -> None:
        """End, or pause, those whose time is over."""
        while True:
            self._changed.clear()
            now = time.time()
            due = [one for one in self.entries if one.ready and one.deadline and one.deadline <= now]
            await asyncio.gather(*(self._over(one) for one in due))
            left = [one.deadline - time.time() for one in self.entries if one.ready and one.deadline]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), max(0.0, min([*left, _LONGEST_NAP])))

    async def _over(self, entry: Entry) -> None:
        pause = entry.auto_pause and self.state(entry) == "running"
        try:
            await (self.pause(entry) if pause else self.kill(entry))
        except Exception as error:  # whatever it is, the other sandboxes' time passes too
            expected = isinstance(error, TinamouError | RefusedError | OSError)
            verb = "paused" if pause else "ended"
            _log.warning("sandbox %s could not be %s: %s", entry.id, verb, error, exc_info=not expected)
            if (current := self.entries.get(entry.id)) is not None:
                self.entries.put(late.replace(current, deadline=time.time() + _AGAIN_SECONDS))


def record_of(entry: Entry) -> Record | None:
    """The record of its machine, None where that is gone."""
    try:
        return read(machines.machines_dir() / entry.machine)
    except StateError:
        return None


async def _machine_removed(name: str) -> None:
    if (machines.machines_dir() / name).exists():
        await lives.remove([name], force=True)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
