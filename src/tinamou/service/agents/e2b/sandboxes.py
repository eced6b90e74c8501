"""The sandboxes of this host: made, found, kept alive until their time is over, copied, saved, ended."""

from __future__ import annotations

import asyncio
import contextlib
import functools
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
_SWEEP_SECONDS = 60.0
"""How often is looked for sandboxes whose machines are gone, or run without a deadline."""
_UNTIMED_SECONDS = 300
"""How long a sandbox lives that runs and has no deadline: one resumed behind the service's back."""

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
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._again: dict[str, float] = {}  # when what failed is tried again; on disk it would fail where the disk is full
        self._going: set[str] = set()  # being paused or removed
        self._saving: set[str] = set()  # checkpoints of forks under way
        self._swept = 0.0
        self._end = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        folder = sandboxes_dir()
        try:
            self._end.enter_context(exclusive(folder / "lock", seconds=_LOCK_SECONDS))
        except StateError as error:
            raise StateError("another process serves the sandboxes of this state directory", why=error.why) from error
        self.entries: Shelf[Entry] = Shelf(folder, Entry)
        self.snapshots: Shelf[Snapshot] = Shelf(folder / "snapshots", Snapshot)
        for one in [one for one in self.entries if not one.ready or self.state(one) == "gone"]:
            try:
                await self._remove(one)
            except (TinamouError, OSError) as error:
                _log.warning("what was made of sandbox %s before a crash is left: %s", one.id, error)
                self.entries.drop(one.id)
        watch = asyncio.create_task(self._watch_deadlines())
        self._end.push_async_callback(self._no_more_endings)
        self._end.push_async_callback(_cancelled, watch)
        return self

    async def __aexit__(self, *_: object) -> None:
        for live in self._live.values():
            live.close()
        self._live.clear()
        await self._end.aclose()

    def find(self, key: str, owner: str, *, gone: bool = False) -> Entry:
        """A sandbox of that owner, with ``gone`` also one whose machine is gone. Raises RefusedError, 404."""
        entry = self.entries.get(key)
        there = entry is not None and entry.owner == owner and entry.ready and (gone or self.state(entry) != "gone")
        if entry is None or not there:
            raise RefusedError(404, f"sandbox {key[:64]} was not found")
        return entry

    def every(self, owner: str) -> Iterator[tuple[Entry, State]]:
        """Those of that owner that there are."""
        for one in self.entries:
            if one.owner == owner and one.ready and (state := self.state(one)) != "gone":
                yield one, state

    def made_by(self, owner: str, request: str) -> Entry | None:
        """The sandbox that this request of that owner has made already. Raises RefusedError, 409, while it is being made."""
        for one in self.entries:
            if not request or (one.owner, one.request) != (owner, request):
                continue
            if not one.ready:
                raise RefusedError(409, "the sandbox of this Idempotency-Key is being made")
            if self.state(one) != "gone":
                return one
        return None

    def state(self, entry: Entry) -> State:
        """Whether its machine runs, is suspended, or is neither: then it is no sandbox any more."""
        record = record_of(entry)
        if record is None:
            return "gone"
        return "running" if record.running else "paused" if is_suspended(record) else "gone"

    async def create(self, entry: Entry, template: Template, *, network: bool) -> Entry:
        """Make the machine of a new sandbox."""
        await self._make_room(1)
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

    async def _make_room(self, count: int) -> None:
        """As `_room`, but those whose machines are gone are removed before anybody is refused."""
        if len(list(self.entries)) + count > self.most:
            for one in [one for one in self.entries if self._is_gone(one)]:
                await self._over(one)
        self._room(count)

    def _is_gone(self, entry: Entry) -> bool:
        """Whether its machine is gone, and not just between two states."""
        turn = self._turns.get(entry.id)
        return entry.ready and not (turn is not None and turn.locked()) and self.state(entry) == "gone"

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
        """Let it live for so many seconds from now on; with ``longer`` only where that is later.

        Raises RefusedError where it is gone, or is being paused or ended.
        """
        entry = self._current(entry)
        if entry.id in self._going:
            raise RefusedError(409, f"sandbox {entry.id} is being paused or ended")
        deadline = time.time() + seconds
        if not (longer and deadline <= entry.deadline):
            entry = self.entries.put(late.replace(entry, deadline=deadline))
            self._changed.set()
        return entry

    async def connect(self, entry: Entry, seconds: int) -> tuple[Entry, bool]:
        """Let it live longer; one that is paused is taken up; whether it was."""
        async with self.turn(entry) as now:
            paused = self.state(now) == "paused"
            if paused:
                await lives.resume(now.machine)
            return self.until(now, seconds, longer=True), paused

    async def pause(self, entry: Entry) -> None:
        """Save it and end its QEMU. What ran for a client is ended. Raises RefusedError, 409, for one that is paused."""
        async with self.turn(entry) as now:
            await self._pause(now)

    async def _pause(self, entry: Entry) -> None:
        if self.state(entry) != "running":
            raise RefusedError(409, f"sandbox {entry.id} is paused already")
        self._drop(entry.id)
        self._going.add(entry.id)
        try:
            await lives.suspend(entry.machine)
            self.entries.put(late.replace(entry, deadline=0.0))
        finally:
            self._going.discard(entry.id)

    async def fork(self, entry: Entry, ids: Sequence[str], seconds: int) -> list[Entry]:
        """Copies of it at this moment, by those ids."""
        await self._make_room(len(ids))
        name = f"{_FORKED}{secrets.token_hex(6)}"
        self._saving.add(name)
        try:
            return await self._forked(entry, name, ids, seconds)
        except BaseException:
            self._saving.discard(name)
            await self._unused_removed()
            raise
        finally:
            self._saving.discard(name)

    async def _forked(self, entry: Entry, name: str, ids: Sequence[str], seconds: int) -> list[Entry]:
        async with self.turn(entry) as now:
            live = await self.live(now)
            await live.line()
            checkpoint = await making.saved(live.machine, name)
        moment = time.time()
        copy: dict[str, Any] = {
            "request": "",
            "checkpoint": checkpoint.name,
            "started": moment,
            "deadline": moment + seconds,
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

    async def snapshot(self, entry: Entry, names: Sequence[str]) -> Snapshot:
        """Its whole state, kept until it is removed."""
        key = fresh_id("snap")
        async with self.turn(entry) as now:
            live = await self.live(now)
            await live.line()
            await making.saved(live.machine, key)
        return self.snapshots.put(Snapshot(key, entry.owner, entry.id, time.time(), tuple(names), entry.user))

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
        async with self.turn(entry) as now:
            await self._remove(now)

    @contextlib.asynccontextmanager
    async def turn(self, entry: Entry) -> AsyncIterator[Entry]:
        """One change of a sandbox after another: its entry when it is our turn. Raises RefusedError where it is gone."""
        async with self._turns.setdefault(entry.id, asyncio.Lock()):
            yield self._current(entry)

    def _current(self, entry: Entry) -> Entry:
        if (current := self.entries.get(entry.id)) is None:
            raise RefusedError(404, f"sandbox {entry.id} was not found")
        return current

    def _drop(self, key: str) -> None:
        if (live := self._live.pop(key, None)) is not None:
            live.close()

    async def _remove(self, entry: Entry) -> None:
        self._drop(entry.id)
        self._going.add(entry.id)
        try:
            if record_of(entry) is not None:
                await _machine_removed(entry.machine)
            self.entries.drop(entry.id)
        finally:
            self._going.discard(entry.id)
        self._turns.pop(entry.id, None)
        self._again.pop(entry.id, None)
        await self._unused_removed()

    async def _unused_removed(self) -> None:
        """Remove what was saved for forks and nobody is a fork of any more. What is under way may change at every step."""
        for one in await in_thread(checkpoints.every):
            used = self._saving | {entry.checkpoint for entry in self.entries}
            if one.name.startswith(_FORKED) and one.name not in used:
                with contextlib.suppress(StateError):  # a snapshot's disks rest on it
                    await in_thread(checkpoints.remove, one.name)

    async def _watch_deadlines(self) -> None:
        """End, or pause, those whose time is over, each by itself: one that is slow holds up no other."""
        while True:
            self._changed.clear()
            nap = _AGAIN_SECONDS
            try:
                nap = self._end_due()
            except Exception:  # whatever it is, time goes on
                _log.exception("what sandboxes' time is over could not be found out")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(nap):  # wait_for of Python 3.11 can lose a cancellation
                    await self._changed.wait()

    def _end_due(self) -> float:
        """Begin to end those whose time is over or whose machine is gone; after how many seconds to look again."""
        now = time.time()
        sweep = now - self._swept >= _SWEEP_SECONDS
        self._swept = now if sweep else self._swept
        nap = _SWEEP_SECONDS
        for one in self.entries:
            if not one.ready or one.id in self._ending:
                continue
            if sweep and not one.deadline and self.state(one) == "running" and one.id not in self._going:
                with contextlib.suppress(OSError):
                    self.until(one, _UNTIMED_SECONDS)
            left = max(one.deadline or now + nap, self._again.get(one.id, 0.0)) - now
            if left <= 0 or (sweep and self._is_gone(one)):
                task = self._ending[one.id] = asyncio.create_task(self._over(one))
                task.add_done_callback(functools.partial(self._over_done, one.id))
            else:
                nap = min(nap, left)
        return nap

    def _over_done(self, key: str, _: asyncio.Task[None]) -> None:
        self._ending.pop(key, None)
        self._changed.set()

    async def _over(self, entry: Entry) -> None:
        """End or pause it, unless it was given more time before its turn came; what fails is tried again later."""
        verb = "ended"
        try:
            async with self.turn(entry) as now:
                state = self.state(now)
                if state != "gone" and not 0 < now.deadline <= time.time():
                    return
                if state == "paused":
                    self.entries.put(late.replace(now, deadline=0.0))
                elif state == "running" and now.auto_pause:
                    verb = "paused"
                    await self._pause(now)
                else:
                    await self._remove(now)
        except Exception as error:  # whatever it is, the other sandboxes' time passes too
            if self.entries.get(entry.id) is None:
                return
            expected = isinstance(error, TinamouError | RefusedError | OSError)
            _log.warning("sandbox %s could not be %s: %s", entry.id, verb, error, exc_info=not expected)
            self._again[entry.id] = time.time() + _AGAIN_SECONDS

    async def _no_more_endings(self) -> None:
        for task in list(self._ending.values()):
            await _cancelled(task)


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
