"""Run a command from an event loop, hearing its output as it comes, and end it with the task that waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from tinamou.system.exec import CommandError, clean_environment

__all__ = ["attended", "communicate", "piped", "run_async"]

_PIECE = 4096
_KEPT = 64 << 10


async def run_async(
    argv: Sequence[str],
    *,
    hear: Callable[[bytes], None] | None = None,
    cwd: str | None = None,
    environment: Mapping[str, str] | None = None,
    patience: float | None = None,
) -> str:
    """Run to the end and return the end of stdout; ``hear`` gets stdout in pieces. Raises CommandError, FileNotFoundError.

    When the waiting task is cancelled the command is killed and has ended before this returns; so it is when stdout is
    silent for ``patience`` seconds, which raises TimeoutError.
    """
    async with _started(argv, environment, cwd) as process:
        assert process.stdout is not None and process.stderr is not None
        complaints = asyncio.ensure_future(_end_of(process.stderr))
        kept = b""
        while piece := await asyncio.wait_for(process.stdout.read(_PIECE), patience):
            kept = (kept + piece)[-_KEPT:]
            if hear:
                hear(piece)
        errors = await complaints
        status = await process.wait()
    if status:
        raise CommandError(tuple(argv), status, kept.decode(errors="replace"), errors.decode(errors="replace"))
    return kept.decode(errors="replace")


@contextlib.asynccontextmanager
async def _started(
    argv: Sequence[str], environment: Mapping[str, str] | None, cwd: str | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command that reads nothing, and has ended where the block is left early."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environment() if environment is None else dict(environment),
        cwd=cwd,
    )
    try:
        yield process
    except BaseException:
        _send(process, signal.SIGKILL)
        await process.wait()
        raise


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send it a signal where it still runs.

    The process's own methods ask first whether it has ended, and where it just has, take that from the event loop, which
    then tells of an unknown child and of status 255 (CPython, `subprocess.Popen.send_signal`).
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


async def _end_of(stream: asyncio.StreamReader) -> bytes:
    kept = b""
    while piece := await stream.read(_PIECE):
        kept = (kept + piece)[-_KEPT:]
    return kept


async def communicate(
    argv: Sequence[str], *, environment: Mapping[str, str] | None = None, timeout: float | None = None
) -> tuple[int, bytes, bytes]:
    """Run to the end and return exit status, stdout and stderr; the command is killed when it is not waited for any more.

    Raises TimeoutError after ``timeout`` seconds, FileNotFoundError.
    """
    async with _started(argv, environment) as process:
        out, err = await asyncio.wait_for(process.communicate(), timeout)
    return process.returncode or 0, out, err


async def attended(argv: Sequence[str]) -> int:
    """Run a program that has this process's terminal and environment; its status. Ctrl-C is that program's alone meanwhile.

    Raises FileNotFoundError.
    """
    process = await asyncio.create_subprocess_exec(*argv)
    heeds = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return await process.wait()
    except BaseException:
        _send(process, signal.SIGTERM)
        await process.wait()
        raise
    finally:
        signal.signal(signal.SIGINT, heeds)


@contextlib.asynccontextmanager
async def piped(
    argv: Sequence[str], *, environment: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program whose stdin, stdout and stderr are pipes, for the block; it is killed and has ended after it.

    Raises FileNotFoundError.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environment() if environment is None else dict(environment),
        pass_fds=tuple(pass_fds),
    )
    try:
        yield process
    finally:
        _send(process, signal.SIGKILL)
        await process.wait()
