"""One QMP session: connect, execute, listen to events; everything ends in time, whatever QEMU does.

Source: docs/interop/qmp-spec of QEMU.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Self

from tinamou.control.answers import number, record, text
from tinamou.control.bounds import CONNECT_SECONDS, largest, patience
from tinamou.control.wire import MESSAGE_BYTES, GarbledError, Wire
from tinamou.errors import ControlError
from tinamou.late import dataclass, field
from tinamou.system.sockets import NotListeningError, connect_unix

__all__ = ["DisconnectedError", "Event", "Listener", "RefusedError", "Session", "SilentError", "connect", "refusal"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.010
_REMEMBERED_EVENTS = 128
_WAITING_EVENTS = 1024
_MOST_EVENTS, _COUNTED_SECONDS = 10_000, 10.0
"""A QEMU that tells more only wants to keep its listener busy."""

_GREETING = "qmp_capabilities"


class RefusedError(ControlError):
    """QEMU refused a command: ``error_class`` is the QMP class (``GenericError``, ``DeviceNotFound``, …)."""

    def __init__(self, command: str, arguments: Mapping[str, object], error_class: str, description: str) -> None:
        shown = f" with {dict(arguments)}" if arguments else ""
        super().__init__(f"QEMU refused the command {command}{shown}", why=f"{description} ({error_class})")
        self.command = command
        self.arguments: dict[str, object] = dict(arguments)
        self.error_class = error_class
        self.description = description


class DisconnectedError(ControlError):
    """The session ended: QEMU exited, closed the connection, or sent what is no QMP.

    Whether a command in flight took effect is unknown.
    """


class SilentError(ControlError):
    """QEMU did not answer a command in time; whether it takes effect is unknown. The session goes on."""

    def __init__(self, command: str, seconds: float) -> None:
        why = "it is busy, stopped by the host, or hangs"
        super().__init__(f"QEMU did not answer {command} within {seconds:g} s", why=why)


@dataclass(frozen=True)
class Event:
    """Something QEMU reported: ``at`` is its own clock, in seconds since 1970."""

    name: str
    data: Mapping[str, object] = field(default_factory=dict)
    at: float = 0.0


_BEFORE = frozenset({"event", "return", "error"})
"""What a message has that is no greeting, and may come before it."""


class Listener:
    """The events of one subscription, in order, from the moment it was made; leave it with ``with`` or ``close``."""

    def __init__(self, session: Session, names: Iterable[str]) -> None:
        self._session = session
        self._names = frozenset(names)
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        session.listeners.append(self)
        if session.closed:
            self.put(None)

    def put(self, event: Event | None) -> None:
        """Queue an event this listener asked for; None marks the end of the session. Raises GarbledError."""
        if event is None or not self._names or event.name in self._names:
            if event is not None and self._queue.qsize() >= _WAITING_EVENTS:
                raise GarbledError(f"more events than can be heard: {_WAITING_EVENTS} wait")
            self._queue.put_nowait(event)

    async def next(self, timeout: float | None = None) -> Event:
        """The next event. Raises TimeoutError after ``timeout`` seconds, DisconnectedError when the session has ended."""
        async with asyncio.timeout(timeout):
            event = await self._queue.get()
        if event is None:
            self._queue.put_nowait(None)
            raise self._session.ended()
        return event

    async def __aiter__(self) -> AsyncIterator[Event]:
        with contextlib.suppress(DisconnectedError):
            while True:
                yield await self.next()

    def close(self) -> None:
        """Stop listening."""
        if self in self._session.listeners:
            self._session.listeners.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Session:
    """An open QMP session; ``async with`` closes it.

    ``version`` is QEMU's (major, minor, micro), ``package`` the distribution's name for it; ``recent`` holds the last
    events, whoever listened.
    """

    def __init__(self, connection: socket.socket, path: str) -> None:
        self._path = path
        self._wire = Wire(connection, self._most)
        self._in_flight: dict[str, tuple[str, asyncio.Future[dict[str, Any]]]] = {}
        self._commands = 0
        self._over = asyncio.Event()
        self._reason: Exception | None = None
        self._counted_from, self._counted = 0.0, 0
        self._hearing: asyncio.Task[None] | None = None
        self.version: tuple[int, int, int] = (0, 0, 0)
        self.package: str = ""
        self.recent: deque[Event] = deque(maxlen=_REMEMBERED_EVENTS)
        self.listeners: list[Listener] = []

    async def greet(self) -> None:
        """Hear QEMU's greeting and answer it. Raises ControlError, OSError, EOFError; may wait for ever.

        What QEMU says before it has noticed that another session has begun, its answers to the one before too, comes first.
        """
        while not _BEFORE.isdisjoint(message := await self._wire.receive()):
            if "event" in message:
                self.dispatch(event_of(message))
        self.version, self.package = _version(message)
        self._hearing = asyncio.create_task(self._hear())
        await self._ask(_GREETING, {}, None)

    async def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, /, *, timeout: float | None = None, **more: object
    ) -> object:
        """Run one command and return its answer, as JSON data.

        ``arguments`` go out as they are; in keyword arguments an underscore stands for the dash most QMP names have. Raises
        RefusedError, DisconnectedError, and SilentError after ``timeout`` seconds (a late answer is dropped), after as many
        as the command should take at most when left out.
        """
        return await self._timed(command, {**(arguments or {}), **_dashed(more)}, timeout, None)

    async def execute_with_fd(self, fd: int, command: str, **arguments: object) -> object:
        """Run ``add-fd`` or ``getfd`` with a copy of the file descriptor ``fd`` (SCM_RIGHTS); ``fd`` stays open here."""
        return await self._timed(command, _dashed(arguments), None, fd)

    async def _timed(self, command: str, arguments: Mapping[str, object], timeout: float | None, fd: int | None) -> object:
        seconds = patience(command) if timeout is None else timeout
        if self.closed:
            raise self.ended(command)
        try:
            async with asyncio.timeout(seconds) as limit:
                return await self._ask(command, arguments, fd)
        except TimeoutError:
            if not limit.expired():
                raise
            raise SilentError(command, seconds) from None
        except OSError as reason:
            self._end(reason)
            raise self.ended(command) from reason

    async def _ask(self, command: str, arguments: Mapping[str, object], fd: int | None) -> object:
        self._commands += 1
        name = str(self._commands)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._in_flight[name] = command, answer
        try:
            await self._wire.send({"execute": command, "arguments": arguments, "id": name}, fd=fd)
            message = await answer
        finally:
            del self._in_flight[name]
            if answer.done() and not answer.cancelled():
                answer.exception()  # heard, also where sending failed first
        if "error" in message:
            raise refusal(command, arguments, message)
        return message["return"]

    def _most(self) -> int:
        """How long the next message may be: as long as the longest answer that is waited for."""
        return max((largest(command) for command, _ in self._in_flight.values()), default=MESSAGE_BYTES)

    async def _hear(self) -> None:
        """Take in what QEMU sends until the session ends; one thing that no QEMU sends ends it."""
        try:
            while True:
                self._take(await self._wire.receive())
        except (ControlError, OSError, EOFError) as reason:
            self._end(reason)

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self.dispatch(event_of(message))
            return
        name = message.get("id")
        if not isinstance(name, str):
            raise GarbledError("an answer without the id of what it answers")
        if "return" not in message and "error" not in message:
            raise GarbledError("an answer that neither returns anything nor is an error")
        _, answer = self._in_flight.get(name, ("", None))
        if answer is not None and not answer.done():  # nobody waits for the others any more
            answer.set_result(message)

    def dispatch(self, event: Event) -> None:
        """Hand an event to those who listen. Raises GarbledError."""
        now = time.monotonic()
        if now - self._counted_from > _COUNTED_SECONDS:
            self._counted_from, self._counted = now, 0
        self._counted += 1
        if self._counted > _MOST_EVENTS:
            raise GarbledError(f"more than {_MOST_EVENTS} events in {_COUNTED_SECONDS:g} s")
        self.recent.append(event)
        for listener in tuple(self.listeners):
            listener.put(event)

    def listen(self, *names: str) -> Listener:
        """Subscribe to events by name, or to all of them. Subscribe first, then cause the event."""
        return Listener(self, names)

    async def wait_for(self, names: str | Iterable[str], timeout: float | None = None) -> Event:
        """The next event with one of ``names``. Raises TimeoutError after ``timeout`` seconds, DisconnectedError."""
        with self.listen(*((names,) if isinstance(names, str) else names)) as listener:
            return await listener.next(timeout)

    @property
    def closed(self) -> bool:
        """Whether the session has ended, by either side."""
        return self._over.is_set()

    @property
    def broken(self) -> ControlError | None:
        """What QEMU sent that no QEMU sends, where that ended the session."""
        return self._reason if isinstance(self._reason, ControlError) else None

    def ended(self, command: str = "") -> DisconnectedError:
        """The error for using a session that has ended."""
        during = f" during {command}" if command else ""
        fix = f"socket: {self._path}"
        if self.broken:
            return DisconnectedError(f"{self.broken.what}{during}", why=self.broken.why, fix=fix)
        return DisconnectedError(f"QEMU closed the session{during}", why="it exited, or was killed", fix=fix)

    async def wait_closed(self, timeout: float | None = None) -> None:
        """Return when the session has ended. Raises TimeoutError after ``timeout`` seconds."""
        async with asyncio.timeout(timeout):
            await self._over.wait()

    async def close(self) -> None:
        """End the session at once, whatever is under way; QEMU goes on."""
        self._end(None)
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.wait([self._hearing])

    def _end(self, reason: Exception | None) -> None:
        """The session is over: whoever waits for something of it is told."""
        if self.closed:
            return
        self._reason = reason
        self._over.set()
        self._wire.close()
        for command, answer in self._in_flight.values():
            if not answer.done():
                answer.set_exception(self.ended(command))
        for listener in tuple(self.listeners):
            listener.put(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def connect(
    address: str | socket.socket, *, alive: Callable[[], bool] | None = None, timeout: float = CONNECT_SECONDS
) -> Session:
    """Open a session over a socket path, or over a socket that is connected already (an inherited pair).

    Tries every 1 to 10 ms until QEMU listens, for at most ``timeout`` seconds, and gives up at once when ``alive()`` says
    that the process has ended. Raises ControlError.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    path = address if isinstance(address, str) else "an inherited socket"
    connection = await _reach(address, alive, deadline) if isinstance(address, str) else address
    session = Session(connection, path)
    try:
        async with asyncio.timeout_at(deadline):
            await session.greet()
    except BaseException as reason:
        await session.close()
        if isinstance(reason, TimeoutError):
            raise ControlError(
                f"QEMU did not greet on {path} within {timeout:g} s",
                why="another program holds this monitor, or QEMU is busy or stopped",
                fix="close the other program, or try again",
            ) from None
        if isinstance(reason, ControlError | OSError | EOFError):
            raise _failed(path, session.broken or reason, alive) from reason
        raise
    return session


async def _reach(path: str, alive: Callable[[], bool] | None, deadline: float) -> socket.socket:
    pause = _FIRST_PAUSE
    while True:
        try:
            return connect_unix(path)
        except NotListeningError as reason:
            if alive is not None and not alive():
                raise ControlError(
                    f"QEMU ended before its monitor {path} could be reached", why=str(reason.strerror)
                ) from None
            if asyncio.get_running_loop().time() + pause > deadline:
                raise ControlError(
                    f"QEMU's monitor {path} cannot be reached",
                    why=reason.strerror or str(reason),
                    fix="is the machine running? see: tinamou ls",
                ) from None
        except OSError as reason:
            raise ControlError(f"QEMU's monitor {path} cannot be opened", why=reason.strerror or str(reason)) from reason
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def _failed(path: str, reason: Exception, alive: Callable[[], bool] | None) -> ControlError:
    if isinstance(reason, ControlError) and not isinstance(reason, DisconnectedError):
        return ControlError(f"No QMP session with {path}", why=f"{reason.what}: {reason.why}")
    if alive is None or not alive():
        return ControlError(f"QEMU closed its monitor {path} while it was greeted", why="it exited, or was killed")
    return ControlError(f"No QMP session with {path}", why="it was closed before it had begun")


def refusal(command: str, arguments: Mapping[str, object], message: Mapping[str, object]) -> ControlError:
    """The error in QEMU's answer to a command."""
    error = record(message["error"])
    return RefusedError(command, arguments, text(error, "class"), text(error, "desc"))


def event_of(message: Mapping[str, object]) -> Event:
    """The event in a message. Raises GarbledError."""
    try:
        stamp = record(message.get("timestamp", {}))
        at = number(stamp, "seconds", 0) + number(stamp, "microseconds", 0) / 1e6
        return Event(text(message, "event", most=128), record(message.get("data", {})), at)
    except ControlError as reason:
        raise GarbledError(f"an odd event: {reason.what}: {reason.why}") from None


def _dashed(names: Mapping[str, object]) -> dict[str, object]:
    return {name.replace("_", "-"): value for name, value in names.items()}


def _version(greeting: Mapping[str, object]) -> tuple[tuple[int, int, int], str]:
    version = record(record(greeting.get("QMP")).get("version"))
    qemu = record(version.get("qemu"))
    return (number(qemu, "major"), number(qemu, "minor"), number(qemu, "micro")), text(version, "package", "")
