"""The line to the agent in a guest: framing, getting and staying in step, and taking turns with other programs.

Source: the QEMU guest agent protocol reference, ``guest-sync-delimited``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping

from tinamou.errors import GuestError
from tinamou.guest.answers import said
from tinamou.system.lines import PIECE, Lines, json_of
from tinamou.system.sockets import NotListeningError, connect_unix
from tinamou.system.turns import Turn

__all__ = ["AgentRefusedError", "AgentSilentError", "Channel"]

_LONGEST_ANSWER = 1 << 20
_LONG_ANSWERS = {"guest-exec-status": 48 << 20}
"""Bytes an answer may have: two times 16 MiB of output (source: qga, GUEST_EXEC_MAX_OUTPUT) in base64."""

_RESEND = 1.0
_SHARE = 0.3
_IDLE_CHECK = 0.05
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.020


class AgentRefusedError(GuestError):
    """The agent answered with an error: ``error_class`` as in QMP (``CommandNotFound``, ``GenericError``, …)."""

    def __init__(self, command: str, error_class: str, description: str) -> None:
        super().__init__(f"The guest agent refused {command}", why=f"{description} ({error_class})")
        self.command = command
        self.error_class = error_class
        self.description = description


class AgentSilentError(GuestError):
    """The agent did not answer in time, or the line to it ended; whether a command in flight took effect is unknown."""


class Channel:
    """Requests and answers over the agent's socket of one machine.

    QEMU serves one client at a time, so a lock file beside the socket gives turns. A new connection costs up to 100 ms,
    as long as the agent sleeps before it looks again at a port that nobody had open. So the line is kept for ``linger``
    seconds after an answer; when somebody else waits, for 0.3 s of use or 50 ms of rest.

    A request that ends early (timeout, cancellation) leaves its answer behind; the next one first gets into step by a
    ``guest-sync-delimited`` with a number of its own and drops everything that arrives before the answer to that.
    """

    def __init__(self, path: str, *, linger: float = 0.5) -> None:
        self._path = path
        self._linger = linger
        self._turn = Turn(f"{path}.lock")
        self._request = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lines: Lines | None = None
        self._longest = _LONGEST_ANSWER
        self._writer: asyncio.StreamWriter | None = None
        self._socket: socket.socket | None = None
        self._in_step = False
        self._met = False
        self._gave_way = False
        self._since = 0.0
        self._numbers = itertools.count(int.from_bytes(os.urandom(4), "big") >> 1)
        self._leave: asyncio.TimerHandle | None = None

    async def request(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = 30.0) -> object:
        """Run one agent command and return its answer, as JSON data; ``timeout`` in seconds, waiting for the turn included.

        Raises AgentRefusedError, AgentSilentError.
        """
        return await self._timed(command, timeout, lambda: self._exchange(command, arguments))

    async def sync(self, *, timeout: float = 30.0) -> None:
        """Get into step: returns when the agent has answered. May be called before the guest has even started to boot."""
        self._in_step = False
        await self._timed("guest-sync-delimited", timeout, None)

    async def notify(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = 30.0) -> None:
        """Run a command that does not answer when it succeeds (``guest-shutdown``); an error is heard for half a second."""

        async def exchange() -> object:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    return await self._exchange(command, arguments)
            return None

        with contextlib.suppress(_LineEndedError):
            await self._timed(command, timeout, exchange)

    async def close(self) -> None:
        """Give up the line and the turn; also when they were taken in an event loop that has ended."""
        self._enter_loop()
        self._let_go()

    @property
    def wanted(self) -> bool:
        """Whether another program waits for its turn."""
        return self._turn.held and self._turn.wanted()

    async def _timed(self, command: str, timeout: float, work: Callable[[], Awaitable[object]] | None) -> object:
        self._enter_loop()
        try:
            async with asyncio.timeout(timeout), self._request:
                self._stay()
                try:
                    await self._ready()
                    return await work() if work else None
                finally:
                    self._leave_later()
        except TimeoutError:
            raise self._silent(command, timeout) from None

    def _enter_loop(self) -> None:
        """Begin anew in an event loop that is not the last one: what belongs to that one is gone."""
        if self._loop is not (loop := asyncio.get_running_loop()):
            self._request = asyncio.Lock()
            if self._socket is not None:
                self._socket.close()
            self._lines = self._writer = self._leave = self._socket = None
            self._in_step = False
            self._turn.give()
            self._loop = loop

    def _silent(self, command: str, timeout: float) -> AgentSilentError:
        if not self._turn.held and (holder := self._turn.holder()) not in (0, os.getpid()):
            return AgentSilentError(
                f"The guest agent's turn did not come within {timeout:g} s", why=f"process {holder} talks to it"
            )
        return AgentSilentError(
            f"The guest agent did not answer {command} within {timeout:g} s",
            why="it does not run, is busy, or the guest hangs",
            fix="look at the guest: tinamou console NAME, tinamou logs NAME",
        )

    async def _ready(self) -> None:
        self._give_way()
        if self._writer is None:
            await self._take_turn()
            await self._open()
        if not self._in_step:
            await self._step()

    async def _take_turn(self) -> None:
        pause = _FIRST_PAUSE
        if self._gave_way:
            self._gave_way = False
            await asyncio.sleep(2 * _LONGEST_PAUSE)
        try:
            while not self._turn.take():
                self._turn.wait()
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE)
        except OSError as reason:
            raise GuestError(f"The guest agent's socket {self._path} cannot be locked", why=str(reason)) from reason
        finally:
            self._turn.stop_waiting()

    async def _open(self) -> None:
        self._since = asyncio.get_running_loop().time()
        pause = _FIRST_PAUSE
        while True:
            try:
                sock = connect_unix(self._path)
                break
            except NotListeningError:
                if self._met:
                    raise self._ended() from None
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE)
            except OSError as reason:
                self._let_go()
                raise GuestError(f"The guest agent's socket {self._path} cannot be opened", why=str(reason)) from reason
        self._socket, self._met = sock, True
        reader, self._writer = await asyncio.open_unix_connection(sock=sock, limit=PIECE)
        self._lines = Lines(reader)
        self._in_step = False

    async def _step(self) -> None:
        while True:
            number = next(self._numbers)
            self._send("guest-sync-delimited", {"id": number}, prefix=b"\xff")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RESEND):
                    while await self._receive() != {"return": number}:
                        pass
                    self._in_step = True
                    return

    async def _exchange(self, command: str, arguments: Mapping[str, object] | None) -> object:
        self._in_step = False
        self._send(command, arguments)
        try:
            if self._writer is not None:
                await self._writer.drain()
        except OSError as reason:
            raise self._ended() from reason
        self._longest = _LONG_ANSWERS.get(command, _LONGEST_ANSWER)
        try:
            answer = await self._receive()
        finally:
            self._longest = _LONGEST_ANSWER
        result = None if "error" in answer else said.member(answer, "return")
        self._in_step = True
        if "error" not in answer:
            return result
        error = said.record(answer["error"])
        raise AgentRefusedError(command, said.text(error, "class", ""), said.text(error, "desc", ""))

    def _send(self, command: str, arguments: Mapping[str, object] | None, prefix: bytes = b"") -> None:
        message: dict[str, object] = {"execute": command}
        if arguments:
            message["arguments"] = dict(arguments)
        if self._writer is None:
            raise self._ended()
        self._writer.write(prefix + json.dumps(message).encode() + b"\n")

    async def _receive(self) -> Mapping[str, object]:
        """The next answer; anything that is not one (a torn line, console noise) counts as an empty answer."""
        if self._lines is None:
            raise self._ended()
        try:
            line = await self._lines.next(lambda: self._longest)
        except (OSError, EOFError) as reason:
            raise self._ended() from reason
        except ValueError as reason:
            self._let_go()
            raise said.wrong("is too long", str(reason)) from None
        try:
            answer = json_of(line.rpartition(b"\xff")[2])
        except ValueError:
            return {}
        return answer if isinstance(answer, dict) else {}

    def _ended(self) -> _LineEndedError:
        self._let_go()
        return _LineEndedError("The line to the guest agent ended", why="QEMU exited, or the guest was powered off")

    def _stay(self) -> None:
        if self._leave is not None:
            self._leave.cancel()
            self._leave = None

    def _leave_later(self) -> None:
        if self._turn.held:
            self._leave = asyncio.get_running_loop().call_later(_IDLE_CHECK, self._consider_leaving, _IDLE_CHECK)

    def _consider_leaving(self, idle: float) -> None:
        if idle >= self._linger or self._turn.wanted():
            self._let_go()
        else:
            self._leave = asyncio.get_running_loop().call_later(_IDLE_CHECK, self._consider_leaving, idle + _IDLE_CHECK)

    def _give_way(self) -> None:
        if self._writer is not None and asyncio.get_running_loop().time() - self._since > _SHARE and self._turn.wanted():
            self._let_go()
            self._gave_way = True

    def _let_go(self) -> None:
        self._stay()
        if self._writer is not None:
            self._writer.close()
        self._lines = self._writer = self._socket = None
        self._in_step = False
        self._turn.give()


class _LineEndedError(AgentSilentError):
    """The connection was closed by QEMU."""
