"""Commands and consoles of guests by WebSocket.

A console: binary frames are what is typed and printed; ``{"resize": [columns, rows]}`` as text.
A command: the first frame is text, ``{"argv": […], "env": {}, "cwd": "", "user": "", "terminal": [columns, rows]}``; then
binary frames whose first byte says what follows, 0 input, 1 output, 2 errors; as text ``{"resize": …}``,
``{"signal": 15}``, ``{"end": true}`` (the input is over), and from here ``{"started": pid}``, ``{"exit": status}`` or
``{"problem": …}``, after which the socket is closed.
A screen: binary frames both ways are VNC's (RFC 6143). A page opens each with a ticket, ``?ticket=…``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from tinamou.errors import Problem, SpecError, StateError, TinamouError
from tinamou.guest import console
from tinamou.guest.command import Command, command
from tinamou.guest.resident.underway import RunningCommand
from tinamou.machine import life
from tinamou.operations import by_hand, commands
from tinamou.service.problems import problem_of, status_of
from tinamou.service.shared import Service, existing
from tinamou.service.table import MARK, Asked
from tinamou.service.tickets import GOOD_SECONDS
from tinamou.system.sockets import connect_unix

__all__ = ["console_of", "console_ticket", "exec_in", "exec_ticket", "screen_of", "screen_ticket"]

_PIECE = 32 << 10
_FIRST_SECONDS = 10.0
_INPUT, _OUTPUT, _ERRORS = 0, 1, 2
_MOST_COLUMNS = 10_000


async def _held(socket: WebSocket, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work of an accepted socket; what goes wrong is said, and closes it."""
    try:
        await work()
    except WebSocketDisconnect:
        return
    except TinamouError as error:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await socket.send_text(json.dumps({"problem": problem_of(error)}, default=str))
            await socket.close(4000 + status_of(error), error.what[:120])
        return
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        await socket.close()


async def console_of(socket: WebSocket, _: Service) -> None:
    """A guest's serial console, for one at a time."""
    await socket.accept()
    name = socket.path_params["name"]

    async def work() -> None:
        existing(name)
        record = life.running(name)
        async with console.opened(record.directory) as (line, last):
            if last:
                await socket.send_bytes(last)
            await _either(_printed(socket, line), _typed(socket, line, record.directory))

    await _held(socket, work)


async def screen_of(socket: WebSocket, _: Service) -> None:
    """A guest's screen and keyboard, as its QEMU serves them."""
    await socket.accept()
    name = socket.path_params["name"]

    async def work() -> None:
        existing(name)
        kind, _, path = by_hand.display(name).partition("+unix://")
        if kind != "vnc":
            raise StateError(f"{name}'s screen is not of VNC", why=f"it is {kind}'s", fix=f"tinamou display {name}")
        try:
            line = connect_unix(path)
        except OSError as error:
            raise StateError(f"the screen of {name} cannot be reached", why=str(error)) from error
        with contextlib.closing(line):
            await _either(_printed(socket, line), _typed(socket, line))

    await _held(socket, work)


async def console_ticket(asked: Asked) -> Any:
    """A ticket for the console's socket, with which a page opens it: once, within half a minute."""
    return _ticket(asked)


async def exec_ticket(asked: Asked) -> Any:
    """A ticket for the socket of a command, with which a page opens it: once, within half a minute."""
    return _ticket(asked)


async def screen_ticket(asked: Asked) -> Any:
    """A ticket for the screen's socket, with which a page opens it: once, within half a minute."""
    return _ticket(asked)


def _ticket(asked: Asked) -> Any:
    existing(asked.name)
    path, browser = asked.request.url.path.removesuffix("/ticket"), asked.request.cookies.get(MARK, "")
    return {"ticket": asked.service.tickets.give(asked.caller, browser, path), "seconds": GOOD_SECONDS}


async def _either(*ways: Awaitable[None]) -> None:
    """Both at once until one of them ends, which ends the other."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _printed(socket: WebSocket, line: Any) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await loop.sock_recv(line, _PIECE):
            await socket.send_bytes(data)


async def _typed(socket: WebSocket, line: Any, directory: str = "") -> None:
    """What is typed; the size of a console, whose machine is in ``directory``, is said in between."""
    loop = asyncio.get_running_loop()
    while True:
        data, said = await _frame(socket)
        if data:
            await loop.sock_sendall(line, data)
        elif said.get("resize") is not None and directory:
            await console.fit(directory, *_size(said["resize"]))


async def _frame(socket: WebSocket) -> tuple[bytes, dict[str, Any]]:
    """The next frame: its bytes, or what its text says. Raises WebSocketDisconnect, SpecError."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    if message.get("bytes") is not None:
        return message["bytes"], {}
    try:
        said = json.loads(message.get("text") or "")
        if isinstance(said, dict):
            return b"", said
    except (ValueError, RecursionError):
        pass
    raise SpecError("this frame is not understood", fix="text frames are JSON objects")


def _size(value: Any) -> tuple[int, int]:
    """Columns and rows. Raises SpecError."""
    if isinstance(value, list) and len(value) == 2 and all(type(one) is int and 0 < one < _MOST_COLUMNS for one in value):
        return value[0], value[1]
    raise SpecError("this is no size of a terminal", problems=[Problem("resize", str(value)[:60], "not [columns, rows]")])


async def exec_in(socket: WebSocket, _: Service) -> None:
    """A command in a guest, with its input, output, errors and signals as they come."""
    await socket.accept()
    name = socket.path_params["name"]

    async def work() -> None:
        existing(name)
        try:
            async with asyncio.timeout(_FIRST_SECONDS):
                _, said = await _frame(socket)
        except TimeoutError:
            raise SpecError("no command came", fix='begin with {"argv": ["sh"]}') from None
        terminal = _size(said["terminal"]) if said.get("terminal") else None
        what = _command(said)
        if terminal:
            what = Command(what.argv, what.cwd, what.user, {"TERM": "xterm-256color", **what.env})
        async with commands.open_session(name, what, terminal) as session:
            await _attended(socket, session)

    await _held(socket, work)


def _command(said: dict[str, Any]) -> Command:
    """Raises SpecError, GuestError."""
    argv, env, cwd, user = said.get("argv"), said.get("env") or {}, said.get("cwd") or "", said.get("user") or ""
    sound = isinstance(argv, list) and isinstance(env, dict) and all(isinstance(one, str) for one in (cwd, user))
    if not sound or not all(isinstance(one, str) for one in (*(argv or ()), *env.values())):
        raise SpecError("the command is not understood", fix='{"argv": ["sh", "-c", "…"], "env": {}, "cwd": "", "user": ""}')
    return command(argv or [], env=env, cwd=cwd, user=user)


async def _attended(socket: WebSocket, session: RunningCommand) -> None:
    """A command, until it ends or the socket does; the guest goes on only as its output is taken."""
    await session.begun()
    await socket.send_text(json.dumps({"started": session.pid}))

    async def out() -> None:
        while (said := await session.read()) is not None:
            await socket.send_bytes(bytes([_OUTPUT if said[0] == "out" else _ERRORS]) + said[1])

    async def typed() -> None:
        while True:
            data, said = await _frame(socket)
            if data[:1] == bytes([_INPUT]):
                await session.write(data[1:])
            elif said.get("resize") is not None:
                session.resize(_size(said["resize"]))
            elif type(said.get("signal")) is int and 0 < said["signal"] < 65:
                session.signal(said["signal"])
            elif said.get("end"):
                session.end_input()

    await _either(out(), typed())
    if session.status is not None:
        status = session.status if session.status >= 0 else 128 - session.status
        await socket.send_text(json.dumps({"exit": status}))
