"""Commands in a sandbox as E2B's client has them: started, listed, heard by as many as like, written to, signalled."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

from tinamou.errors import GuestError
from tinamou.guest.resident.underway import RunningCommand
from tinamou.service.agents.e2b.problems import RefusedError, refusal_of

__all__ = ["Event", "Process"]

Event = dict[str, Any]
"""What is told of a command: a `process.ProcessEvent` as JSON."""

_BEHIND = 64
"""Pieces one listener may be behind; the guest waits for the slowest."""
_KILL = 9


class Process:
    """One command under way, from its start to its end. ``over`` is called then; ``seconds`` kill it after so many."""

    def __init__(
        self,
        running: RunningCommand,
        config: Mapping[str, Any],
        *,
        tag: str = "",
        terminal: bool = False,
        seconds: float | None,
    ) -> None:
        self.running: RunningCommand = running
        self.config: Mapping[str, Any] = config
        self.tag: str = tag
        self.pid: int = running.pid
        self._terminal = terminal
        self._hearers: set[asyncio.Queue[Event | RefusedError | None]] = set()
        self._late = ""
        self.done: asyncio.Event = asyncio.Event()
        self._timer = None if not seconds else asyncio.get_running_loop().call_later(seconds, self._too_late, seconds)
        self._task: asyncio.Task[None] | None = None

    def pump(self) -> asyncio.Task[None]:
        """Read what it prints, from now on; whoever listens since before this misses nothing."""
        self._task = asyncio.create_task(self._pump())
        return self._task

    def events(self, beat: float) -> AsyncIterator[Event]:
        """What happens from the call on, after the start: output, the end, and a sign of life every ``beat`` seconds.

        Raises RefusedError for a command whose time was up, or whose guest is gone.
        """
        queue: asyncio.Queue[Event | RefusedError | None] = asyncio.Queue(_BEHIND)
        self._hearers.add(queue)
        return self._heard(queue, beat)

    async def _heard(self, queue: asyncio.Queue[Event | RefusedError | None], beat: float) -> AsyncIterator[Event]:
        try:
            yield {"start": {"pid": self.pid}}
            while True:
                try:
                    async with asyncio.timeout(beat):
                        event = await queue.get()
                except TimeoutError:
                    event = {"keepalive": {}}
                if event is None:
                    return
                if isinstance(event, RefusedError):
                    raise event
                yield event
        finally:
            self._hearers.discard(queue)
            while not queue.empty():
                queue.get_nowait()

    async def write(self, data: bytes) -> None:
        """Give it input. Raises RefusedError where nobody reads it, GuestError."""
        if not await self.running.write(data):
            raise RefusedError(400, f"process {self.pid} reads no input any more", code="failed_precondition")

    def _too_late(self, seconds: float) -> None:
        self._late = f"the command did not end within {seconds:g} s, and was killed"
        self.running.signal(_KILL)

    async def _pump(self) -> None:
        last: Event | RefusedError
        try:
            while (said := await self.running.read()) is not None:
                name = "pty" if self._terminal else "stdout" if said[0] == "out" else "stderr"
                await self._tell({"data": {name: base64.b64encode(said[1]).decode()}})
            last = {"end": _end(self.running.status or 0)}
        except GuestError as error:
            last = refusal_of(error)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self.done.set()
        await self._tell(RefusedError(504, self._late, code="deadline_exceeded") if self._late else last)
        await self._tell(None)

    async def _tell(self, event: Event | RefusedError | None) -> None:
        for queue in list(self._hearers):
            if queue in self._hearers:
                await queue.put(event)


def _end(status: int) -> dict[str, object]:
    """How it ended (source: Go's os.ProcessState as envd gives it: -1 for what a signal ended)."""
    how: Literal["exit status", "signal:"] = "exit status" if status >= 0 else "signal:"
    text = f"{how} {abs(status)}"
    end: dict[str, object] = {"exitCode": status if status >= 0 else -1, "exited": status >= 0, "status": text}
    return {**end, "error": text} if status else end
