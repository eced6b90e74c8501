"""One QMP session: connect, execute, listen to events (specification: docs/interop/qmp-spec of QEMU).

The protocol itself is qemu.qmp's, imported when the first session is opened: that takes about 50 ms, which the caller
spends while QEMU starts.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tinamou.errors import ControlError
from tinamou.system.sockets import NotListeningError, connect_unix

if TYPE_CHECKING:
    import asyncio
    import socket

    from qemu.qmp import QMPClient

__all__ = ["DisconnectedError", "Event", "Listener", "RefusedError", "Session", "connect"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.010
_REMEMBERED_EVENTS = 128


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
    """The session ended: QEMU exited, or closed the connection. Whether a command in flight took effect is unknown."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something QEMU reported: ``at`` is its own clock, in seconds since 1970."""

    name: str
    data: Mapping[str, object] = field(default_factory=dict)
    at: float = 0.0


class Listener:
    """The events of one subscription, in order, from the moment it was made; leave it with ``with`` or ``close``."""

    def __init__(self, session: Session, names: Iterable[str]) -> None:
        import asyncio

        self._session = session
        self._names = frozenset(names)
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        session.listeners.append(self)
        if session.closed:
            self.put(None)

    def put(self, event: Event | None) -> None:
        """Queue an event this listener asked for; None marks the end of the session."""
        if event is None or not self._names or event.name in self._names:
            self._queue.put_nowait(event)

    async def next(self, timeout: float | None = None) -> Event:
        """The next event. Raises TimeoutError after ``timeout`` seconds, DisconnectedError when the session has ended."""
        import asyncio

        event = await asyncio.wait_for(self._queue.get(), timeout)
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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Session:
    """An open QMP session; ``async with`` closes it.

    ``version`` is QEMU's (major, minor, micro); ``recent`` holds the last events, whoever listened.
    """

    def __init__(self, client: QMPClient, path: str) -> None:
        import asyncio

        self._client = client
        self._path = path
        self._passing = asyncio.Lock()
        self._done = asyncio.Event()
        self._closing = asyncio.Event()
        self.version: tuple[int, int, int] = _version(client)
        self.recent: deque[Event] = deque(maxlen=_REMEMBERED_EVENTS)
        self.listeners: list[Listener] = []
        self._watch: asyncio.Task[None] = asyncio.create_task(self._watching())

    def dispatch(self, event: Event) -> None:
        """Hand an event to those who listen."""
        self.recent.append(event)
        for listener in tuple(self.listeners):
            listener.put(event)

    async def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, /, *, timeout: float | None = None, **more: object
    ) -> object:
        """Run one command and return its answer, as JSON data.

        ``arguments`` go out as they are; in keyword arguments an underscore stands for the dash most QMP names have.
        Raises RefusedError, DisconnectedError, and TimeoutError after ``timeout`` seconds (a late answer is dropped).
        """
        import asyncio

        from qemu.qmp import ExecInterruptedError, ExecuteError, QMPError

        given = {**(arguments or {}), **{name.replace("_", "-"): value for name, value in more.items()}}
        if self.closed:
            raise self.ended(command)
        try:
            return await asyncio.wait_for(self._client.execute(command, given or None), timeout)
        except ExecuteError as refusal:
            raise RefusedError(command, given, refusal.error_class, str(refusal)) from None
        except (ExecInterruptedError, OSError, EOFError) as reason:
            if isinstance(reason, TimeoutError):
                raise
            raise self.ended(command) from reason
        except QMPError as reason:
            raise ControlError(f"QEMU did not answer the command {command} as QMP demands", why=str(reason)) from reason

    async def execute_with_fd(self, fd: int, command: str, **arguments: object) -> object:
        """Run ``add-fd`` or ``getfd`` with a copy of the file descriptor ``fd`` (SCM_RIGHTS); ``fd`` stays open here."""
        async with self._passing:
            if self.closed:
                raise self.ended(command)
            self._client.send_fd_scm(fd)
            return await self.execute(command, {name.replace("_", "-"): value for name, value in arguments.items()})

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
        from qemu.qmp import Runstate

        return self._client.runstate is not Runstate.RUNNING

    def ended(self, command: str = "") -> DisconnectedError:
        """The error for using a session that has ended."""
        during = f" during {command}" if command else ""
        return DisconnectedError(
            f"QEMU closed the session{during}", why="it exited, or was killed", fix=f"socket: {self._path}"
        )

    async def wait_closed(self, timeout: float | None = None) -> None:
        """Return when the session has ended. Raises TimeoutError after ``timeout`` seconds."""
        import asyncio

        await asyncio.wait_for(self._done.wait(), timeout)

    async def close(self) -> None:
        """End the session; QEMU goes on."""
        self._closing.set()
        await self._done.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _watching(self) -> None:
        import asyncio

        from qemu.qmp import QMPError, Runstate

        while not self.closed:
            waits = [asyncio.ensure_future(self._client.runstate_changed()), asyncio.ensure_future(self._closing.wait())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            if self._closing.is_set():
                break
        if self._client.runstate is not Runstate.IDLE:
            with contextlib.suppress(QMPError, OSError, EOFError):
                await self._client.disconnect()
        for listener in tuple(self.listeners):
            listener.put(None)
        self._done.set()


async def connect(
    address: str | socket.socket, *, alive: Callable[[], bool] | None = None, timeout: float = 10.0
) -> Session:
    """Open a session over a socket path, or over a socket that is connected already (an inherited pair).

    Tries every 1 to 10 ms until QEMU listens, for at most ``timeout`` seconds, and gives up at once when ``alive()`` says
    that the process has ended. Raises ControlError.
    """
    import asyncio

    deadline = asyncio.get_running_loop().time() + timeout
    path = address if isinstance(address, str) else "an inherited socket"
    heard: list[Event] = []
    try:
        client, receiver = await _greeted(address, alive, deadline, heard.append)
    except ControlError:
        raise
    except TimeoutError:
        raise ControlError(
            f"QEMU did not greet on {path} within {timeout:g} s",
            why="another program holds this monitor, or QEMU is busy or stopped",
            fix="close the other program, or try again",
        ) from None
    except Exception as reason:
        raise _failed(path, reason, alive) from reason
    session = Session(client, path)
    for event in heard:
        session.dispatch(event)
    receiver.deliver = session.dispatch
    return session


async def _greeted(
    address: str | socket.socket, alive: Callable[[], bool] | None, deadline: float, deliver: Callable[[Event], None]
) -> tuple[QMPClient, _Receiver]:
    """A client that has negotiated, and who receives its events.

    QEMU may send an event before it answers ``qmp_capabilities``, on which qemu.qmp gives up: it is tried again.
    Raises TimeoutError when QEMU is there and does not greet; ControlError when it cannot be reached.
    """
    import asyncio

    attempts = 5 if isinstance(address, str) else 1
    while True:
        sock = await _reach(address, alive, deadline) if isinstance(address, str) else address
        client = _new_client()
        receiver = _receive(client, deliver)
        try:
            async with asyncio.timeout_at(deadline):
                await client.connect(sock)
        except Exception as reason:
            attempts -= 1
            negotiation = getattr(reason, "exc", reason)
            if not (attempts and isinstance(getattr(negotiation, "exc", None), AssertionError)):
                raise
        else:
            return client, receiver


async def _reach(path: str, alive: Callable[[], bool] | None, deadline: float) -> socket.socket:
    import asyncio

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
    cause = getattr(reason, "exc", reason)
    if isinstance(cause, EOFError | ConnectionError) and (alive is None or not alive()):
        return ControlError(f"QEMU closed its monitor {path} while it was greeted", why="it exited, or was killed")
    return ControlError(f"No QMP session with {path}", why=str(cause) or type(cause).__name__)


def _new_client() -> QMPClient:
    import logging

    from qemu.qmp import Message, QMPClient

    class Client(QMPClient):
        """Spells messages out for the log when they are logged only: that takes longer than all else done with them."""

        def _cb_outbound(self, msg: Message) -> Message:
            return super()._cb_outbound(msg) if self.logger.isEnabledFor(logging.DEBUG) else msg

        def _cb_inbound(self, msg: Message) -> Message:
            return super()._cb_inbound(msg) if self.logger.isEnabledFor(logging.DEBUG) else msg

    logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
    return Client("tinamou")


@dataclass
class _Receiver:
    deliver: Callable[[Event], None]


def _receive(client: QMPClient, deliver: Callable[[Event], None]) -> _Receiver:
    """Take the client's events away from its own listener, which would keep every event for ever."""
    from qemu.qmp import EventListener, Message

    receiver = _Receiver(deliver)

    class Funnel(EventListener):
        async def put(self, event: Message) -> None:
            receiver.deliver(_event(event))

    client.register_listener(Funnel())
    client.events.event_filter = lambda _: False
    return receiver


def _event(message: Mapping[str, object]) -> Event:
    data, stamp = message.get("data"), message.get("timestamp")
    at = 0.0
    if isinstance(stamp, Mapping):
        at = float(stamp.get("seconds", 0)) + float(stamp.get("microseconds", 0)) / 1e6
    return Event(str(message["event"]), data if isinstance(data, Mapping) else {}, at)


def _version(client: QMPClient) -> tuple[int, int, int]:
    version = client.greeting.QMP.version.get("qemu") if client.greeting else None
    if not isinstance(version, Mapping):
        return (0, 0, 0)
    return (int(version.get("major", 0)), int(version.get("minor", 0)), int(version.get("micro", 0)))
