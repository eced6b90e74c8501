"""The remote calls about commands: `process.Process` of envd."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tinamou.errors import GuestError, NoCommandError
from tinamou.guest.command import no_folder, no_user
from tinamou.guest.resident.underway import RunningCommand
from tinamou.service.agents.e2b.live import Live
from tinamou.service.agents.e2b.problems import RefusedError
from tinamou.service.agents.e2b.processes import Event, Process
from tinamou.service.agents.e2b.rpc import beat_of, frames_of, limited, message_of, seconds_of, streamed, unary

__all__ = ["METHODS", "call"]

Data = dict[str, Any]

_BASH, _SHELL = "/bin/bash", "/bin/sh"
_SIGNALS = {"SIGNAL_SIGTERM": 15, "SIGNAL_SIGKILL": 9, 15: 15, 9: 9}
_MOST = 4096


async def call(request: Request, live: Live, user: str, method: str) -> Response:
    """Answer a call. Raises RefusedError, TinamouError."""
    if method == "Start":
        message = await message_of(request)
        process = await _started(live, message, user, seconds_of(request))
        events = process.events(beat_of(request))
        first = await anext(events)
        task = process.pump()
        task.add_done_callback(lambda _: live.processes.pop(process.pid, None))
        return streamed(_told(events, first))
    if method == "Connect":
        process = _selected(live, await message_of(request))
        events = process.events(beat_of(request))
        return streamed(limited(_told(events), seconds_of(request)))
    if method == "StreamInput":
        return await _stream_input(request, live)
    return await unary(request, lambda message: METHODS[method](live, message))


async def _told(events: AsyncIterator[Event], first: Event | None = None) -> AsyncIterator[Data]:
    if first is not None:
        yield {"event": first}
    async for event in events:
        yield {"event": event}


async def _started(live: Live, message: Data, user: str, seconds: float | None) -> Process:
    config = message.get("process") or {}
    argv = [config.get("cmd", ""), *config.get("args", [])]
    size = ((message.get("pty") or {}).get("size")) or None
    terminal = None if size is None else (int(size.get("cols", 80)), int(size.get("rows", 24)))
    cwd = config.get("cwd") or ""
    cwd = await live.path(cwd, user) if cwd else ""
    env = {str(key): str(value) for key, value in (config.get("envs") or {}).items()}
    try:
        running = await _begun(live, argv, terminal, {"cwd": cwd, "user": user, "env": env})
    except GuestError as error:
        raise _named(error, live.user(user), cwd) from error
    if message.get("stdin") is False and terminal is None:
        running.end_input()
    process = Process(running, config, tag=message.get("tag") or "", terminal=terminal is not None, seconds=seconds)
    live.processes[process.pid] = process
    return process


async def _begun(live: Live, argv: list[str], size: tuple[int, int] | None, how: Data) -> RunningCommand:
    """E2B's client names bash; a guest that has none, as the tiny one, runs the same words by its sh."""
    try:
        return await live.begin(live.what(argv, **how), size)
    except NoCommandError:
        if argv[0] != _BASH:
            raise
        return await live.begin(live.what([_SHELL, *argv[1:]], **how), size)


def _named(error: GuestError, user: str, cwd: str) -> Exception:
    """The error, as a refusal where the client has a class of its own for it."""
    if error.what == no_user(user).what:
        return RefusedError(401, str(error), code="unauthenticated")
    if error.what == no_folder(cwd, "").what:
        return RefusedError(400, str(error), code="invalid_argument")
    return error


def _selected(live: Live, message: Data) -> Process:
    selector = message.get("process") or {}
    pid, tag = selector.get("pid"), selector.get("tag")
    for one in live.processes.values():
        if (pid is not None and str(pid) == str(one.pid)) or (tag and tag == one.tag):
            return one
    raise RefusedError(404, f"there is no process {pid if pid is not None else tag}", code="not_found")


def _bytes(message: Data) -> bytes:
    given = message.get("input") or {}
    try:
        return base64.b64decode(given.get("stdin") or given.get("pty") or "", validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise RefusedError(400, f"the input is not base64: {error}") from error


async def _list(live: Live, _: Data) -> Data:
    return {
        "processes": [
            {"config": one.config, "pid": one.pid, **({"tag": one.tag} if one.tag else {})}
            for one in live.processes.values()
        ]
    }


async def _send_input(live: Live, message: Data) -> Data:
    await _selected(live, message).write(_bytes(message))
    return {}


async def _send_signal(live: Live, message: Data) -> Data:
    number = _SIGNALS.get(message.get("signal", 0))
    if number is None:
        raise RefusedError(400, f"{message.get('signal')!r} is no signal that can be sent")
    _selected(live, message).running.signal(number)
    return {}


async def _close_stdin(live: Live, message: Data) -> Data:
    _selected(live, message).running.end_input()
    return {}


async def _update(live: Live, message: Data) -> Data:
    size = (message.get("pty") or {}).get("size") or {}
    columns, rows = int(size.get("cols", 0)), int(size.get("rows", 0))
    if not (0 < columns <= _MOST and 0 < rows <= _MOST):
        raise RefusedError(400, f"a terminal cannot have {columns} columns and {rows} rows")
    _selected(live, message).running.resize((columns, rows))
    return {}


async def _stream_input(request: Request, live: Live) -> Response:
    process: Process | None = None
    async for message in frames_of(request):
        if "start" in message:
            process = _selected(live, message["start"])
        elif "data" in message:
            if process is None:
                raise RefusedError(400, "input came before it was said whose")
            await process.write(_bytes(message["data"]))

    async def answer() -> AsyncIterator[Data]:
        yield {}

    return streamed(answer())


METHODS: dict[str, Callable[..., Awaitable[Data]]] = {
    "List": _list,
    "SendInput": _send_input,
    "SendSignal": _send_signal,
    "CloseStdin": _close_stdin,
    "Update": _update,
}
"""The calls of one message that are answered with one."""
