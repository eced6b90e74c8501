"""Long work as operations with ids that outlive the service: written down before anything is done, and when it has ended.

::

    STATE/service/operations/ID.json    one operation: what was asked, by whom, how it ended, its result or error
    STATE/service/lock                  held by the one service of this state directory

A service that is killed leaves operations that say they run: the next one calls them ``interrupted``. What they were doing
is put right by the same means as after a killed command; who asks again with the same idempotency key has them done anew
under the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from tinamou.errors import SpecError, StateError, TinamouError
from tinamou.images.progress import Progress
from tinamou.late import dataclass
from tinamou.operations.operation import Operation, begin
from tinamou.service.auth import Caller
from tinamou.service.problems import MissingError
from tinamou.system.lock import at_once, holder
from tinamou.system.loop_thread import dropped
from tinamou.system.plain_file import read_own
from tinamou.system.replaced import replace_text

__all__ = ["Asking", "BusyError", "Work"]

Task = Callable[[Progress], Awaitable[Any]]

_KEPT, _KEPT_SECONDS = 2000, 7 * 86400.0
"""How many ended operations are remembered, and for how long."""
_MOST_RUNNING = 256
_MOST = 16 << 20
_ID = re.compile(r"[0-9a-f]{16}")
_INTERRUPTED = StateError(
    "the service ended while this was under way",
    why="it was killed, or the host went down; whatever was half done is undone or put right",
    fix="look at what is, then ask again with the same Idempotency-Key: it is done anew under the same id",
)


class BusyError(StateError):
    """As much is under way as may be; the service answers 429."""


@dataclass(frozen=True)
class Asking:
    """What was asked: by whom, what it is (``verb``, ``about``), its key for asking again, and what tells it from others."""

    caller: Caller
    verb: str
    about: str
    key: str = ""
    request: str = ""

    @property
    def digest(self) -> str:
        """What tells one request from another with the same key."""
        return hashlib.sha256(f"{self.verb}\0{self.about}\0{self.request}".encode(errors="surrogatepass")).hexdigest()


class Work:
    """The operations of the service of one state directory. ``tell`` hears each as plain data, whenever it changes."""

    def __init__(self, state: Path, tell: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        self._folder = state / "service/operations"
        self._tell = tell
        self._known: dict[str, dict[str, Any]] = {}
        self._running: dict[str, Operation[Any]] = {}
        self._keys: dict[tuple[str, str], str] = {}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """This is the one service of the state directory until the block ends. Raises StateError where there is another."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self._folder.parent / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if not at_once(lock):
                why, fix = f"{holder(lock)} holds {self._folder.parent / 'lock'}", "use that one, or end it"
                raise StateError("there is a service of these machines already", why=why, fix=fix)
            self._read()
            yield
        finally:
            os.close(lock)

    def _read(self) -> None:
        for path in sorted(self._folder.glob("*.json")):
            try:
                data = json.loads(read_own(path, most=_MOST))
                if not _ID.fullmatch(path.stem) or data["id"] != path.stem:
                    continue
                data["started"] = float(data["started"])
                data |= {key: str(data[key]) for key in ("caller", "about", "verb")}
                data["owner"] = str(data.get("owner", data["caller"]))
            except (OSError, ValueError, TypeError, KeyError, RecursionError):
                continue  # nobody wrote it as it is: it is no operation
            if data["state"] == "running":
                data |= {"state": "interrupted", "ended": time.time(), "error": _INTERRUPTED.to_json()}
                self._write(data)
            self._known[path.stem] = data
            if data.get("key"):
                self._keys[(data["owner"], data["key"])] = path.stem
        self._forget_old()

    def begin(self, asking: Asking, task: Task, plain: Callable[[Any], Any]) -> tuple[dict[str, Any], bool]:
        """Begin an operation, or find the one that was begun with the same key; whether it was there already.

        ``plain`` makes data of the task's result. Raises SpecError for a key that was used for something else, BusyError.
        """
        known = self._known.get(self._keys.get((asking.caller.owner, asking.key), "")) if asking.key else None
        if known is not None and known["digest"] != asking.digest:
            raise SpecError("this Idempotency-Key was used for another request", fix="make a new key for each request")
        if known is not None and known["state"] != "interrupted":
            return self.shown(known["id"]), True
        if len(self._running) >= _MOST_RUNNING:
            raise BusyError(f"{len(self._running)} operations are under way", fix="wait until some have ended")
        number = known["id"] if known else os.urandom(8).hex()
        data = {
            "id": number,
            "verb": asking.verb,
            "about": asking.about,
            "state": "running",
            "started": time.time(),
            "ended": None,
            "progress": {"text": "", "fraction": None},
            "error": None,
            "result": None,
            "caller": asking.caller.name,
            "owner": asking.caller.owner,
            "key": asking.key,
            "digest": asking.digest,
            "first": (known.get("first") or known["started"]) if known else None,
        }
        self._write(data)
        self._known[number] = data
        if asking.key:
            self._keys[(asking.caller.owner, asking.key)] = number
        self._start(data, asking, task, plain)
        self._forget_old()
        return self.shown(number), False

    def _start(self, data: dict[str, Any], asking: Asking, task: Task, plain: Callable[[Any], Any]) -> None:
        async def work(about: str, *, progress: Progress) -> Any:
            return plain(await task(progress))

        work.__name__ = asking.verb
        operation = begin(work, asking.about)
        self._running[data["id"]] = operation
        operation.listen(lambda one: self._changed(data, one))
        self._tell(self.shown(data["id"]))

    def _changed(self, data: dict[str, Any], operation: Operation[Any]) -> None:
        text, fraction = operation.progress
        data["progress"] = {"text": text, "fraction": fraction}
        if operation.state != "running":
            self._running.pop(data["id"], None)
            data |= {"state": operation.state, "ended": operation.ended, **_outcome(operation)}
            self._write(data)
        self._tell(_public(data))

    def about_of(self, caller: Caller, key: str) -> str:
        """What the operation with this key is about; empty where there is none."""
        return str(self._known.get(self._keys.get((caller.owner, key), ""), {}).get("about", ""))

    def began_again(self, caller: Caller, key: str, since: float) -> bool:
        """Whether the operation with this key was begun anew after a kill, and first before that moment."""
        data = self._known.get(self._keys.get((caller.owner, key), ""), {})
        return bool(data.get("first")) and data["first"] <= since

    def belongs(self, number: str, caller: Caller) -> bool:
        """Whether an operation is that caller's own."""
        return str(self._known.get(number, {}).get("owner", "")) == caller.owner

    def shown(self, number: str) -> dict[str, Any]:
        """An operation as it is answered. Raises MissingError."""
        if number not in self._known:
            raise MissingError(f"there is no operation {number[:40]!r}", fix="GET /v1/operations lists those that are known")
        return _public(self._known[number])

    def every(self) -> list[dict[str, Any]]:
        """All that are remembered, the newest first."""
        return sorted(map(_public, self._known.values()), key=lambda one: one["started"], reverse=True)

    def cancel(self, number: str) -> dict[str, Any]:
        """Ask an operation to end; it cleans up first. Raises MissingError, StateError for one that has ended."""
        shown = self.shown(number)
        if number not in self._running:
            raise StateError(f"operation {number} has ended already", why=f"it is {shown['state']}")
        self._running[number].cancel()
        return shown

    async def until_ended(self, number: str, seconds: float) -> dict[str, Any]:
        """The operation once it has ended, or as it is after so many seconds."""
        if operation := self._running.get(number):
            waiting = asyncio.ensure_future(operation.result())
            try:
                await asyncio.wait([waiting], timeout=seconds)
            finally:
                await dropped(waiting)
            await asyncio.sleep(0)  # what hears of its end has been called then
        return self.shown(number)

    async def drained(self, seconds: float) -> None:
        """Wait so long for what is under way, then cancel the rest and wait until it has cleaned up."""
        running = [asyncio.ensure_future(operation.result()) for operation in self._running.values()]
        if running:
            await asyncio.wait(running, timeout=seconds)
        for operation in [*self._running.values()]:
            operation.cancel()
        if running:
            await asyncio.wait(running)
        await asyncio.sleep(0)

    def _write(self, data: dict[str, Any]) -> None:
        replace_text(self._folder / f"{data['id']}.json", json.dumps(data, default=str))

    def _forget_old(self) -> None:
        ended = sorted((one for one in self._known.values() if one["ended"]), key=lambda one: one["started"])
        old = time.time() - _KEPT_SECONDS
        for one in [one for index, one in enumerate(ended) if index < len(ended) - _KEPT or one["started"] < old]:
            del self._known[one["id"]]
            self._keys.pop((one["owner"], one["key"]), None)
            with contextlib.suppress(OSError):
                (self._folder / f"{one['id']}.json").unlink()


def _outcome(operation: Operation[Any]) -> dict[str, Any]:
    """The result, or the error: one of the product's own, or a fault of it, which is told as such."""
    if operation.state == "done":
        task = operation._task
        return {"result": task.result() if task else None}
    if operation.state == "cancelled":
        return {"error": StateError("it was cancelled", why="somebody asked for it, or the service was ended").to_json()}
    if operation.error is not None:
        return {"error": operation.error.to_json()}
    task = operation._task
    failed = task.exception() if task else None
    return {"error": TinamouError(f"{type(failed).__name__}: {failed}", why="this is a fault of tinamou's").to_json()}


def _public(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in ("digest", "key", "first", "owner")}
