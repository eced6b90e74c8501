"""One script in the guest, with data going to it or coming from it: by a port of its own, or else by the guest's agent."""

from __future__ import annotations

import asyncio
import contextlib
import io
import posixpath
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from tinamou.errors import GuestError, TimeLimitError
from tinamou.guest import execute, files
from tinamou.guest.carry import port
from tinamou.guest.carry.feed import PATIENCE_SECONDS, CutShortError, Feed, Line, Ticker
from tinamou.late import dataclass
from tinamou.system.shown import visible

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent, Completed

__all__ = ["SMALL", "Way", "fetch", "probe", "program", "put", "said"]

T = TypeVar("T")

SMALL = 512 << 10
"""Up to so many bytes the agent is quicker than a port, which takes a tenth of a second to come and go."""

_HERE = Path(__file__).parent
_TEMPORARY = ("/tmp", "/run", "/dev/shm", "/var/tmp")  # noqa: S108 (in the guest, as in send.sh)
_DAMAGED, _NO_PORT = 71, 72
_ENDING_SECONDS = 10.0
_LAST_WORDS_SECONDS = 2.0
_LONGEST_WORDS = 2000
_SLOWEST = 1 << 20
"""Bytes a second that a guest puts in their place at least, once it has them all."""


@dataclass(frozen=True)
class Way:
    """How to reach a guest: its agent; the folder of its machine's files, from which a port can be plugged in, or nothing.

    ``task`` is what errors say did not happen, ``moved`` hears how many bytes passed so far.
    """

    agent: Agent
    directory: str
    task: str
    moved: Callable[[int], None]


def _script(name: str) -> str:
    parts = (name,) if name == "probe" else ("line", name)
    return "".join((_HERE / f"{part}.sh").read_text() for part in parts)


def _argv(name: str, words: Sequence[str]) -> list[str]:
    return ["/bin/sh", "-c", _script(name), *words]


def program(arch: str) -> bytes:
    """The guest's program that tells where files have data; nothing for an architecture it is not compiled for."""
    compiled = {file.suffix[1:]: file for file in _HERE.glob("extents.*")}
    return compiled[arch].read_bytes() if arch in compiled else b""


async def probe(agent: Agent, path: str, name: str = "") -> list[str]:
    """What the guest's script says about a path, as lines. Raises GuestError."""
    done = await agent.run(_argv("probe", [path, name]), timeout=PATIENCE_SECONDS, bare=True)
    lines = done.stdout.decode(errors="surrogateescape").removesuffix("\n").split("\n", 3)
    if done.status or len(lines) != 4:
        raise GuestError(f"The guest does not tell what {path} is", why=said(done))
    return lines


async def fetch(
    way: Way, words: Sequence[str], helper: bytes, consume: Callable[[Feed], T], *, limit: int, small: bool
) -> tuple[T, Completed]:
    """Run the script that sends; ``consume`` reads what comes, in a thread. Raises GuestError, and what that raises."""

    def consumed(receive: Callable[[int], bytes], over: Callable[[], bool] = lambda: False) -> T:
        return consume(Feed(receive, limit, way.moved, over))

    def by_port(line: Line) -> T:
        return consumed(line.receive, lambda: line.over)

    async with _tidied(way.agent, [f"{folder}/.tinamou-{words[1]}" for folder in _TEMPORARY]):
        if not small:
            over = await _over_port(way, _argv("send", [port.NAME, *words]), helper, by_port, _ENDING_SECONDS)
            if over is not None:
                return over
        argv = _argv("send", ["-", *words])
        if small:
            done = await way.agent.run(argv, input=helper, timeout=PATIENCE_SECONDS, bare=True)
            return await _consumed(way, done, io.BytesIO(done.stdout), consumed)
        with tempfile.TemporaryFile() as spool:
            done = await _spooled(way, argv, helper, spool, limit)
            spool.seek(0)
            return await _consumed(way, done, spool, consumed)


async def _consumed(
    way: Way, done: Completed, data: IO[bytes], consumed: Callable[[Callable[[int], bytes]], T]
) -> tuple[T, Completed]:
    try:
        return await asyncio.to_thread(consumed, data.read), done
    except CutShortError as error:
        if done.status:
            raise _complaint(way, done) from error
        raise


async def put(
    way: Way, words: Sequence[str], pieces: Callable[[], Iterable[bytes]], *, size: int | None, target: str
) -> Completed:
    """Run the script that receives, and give it the pieces, which are asked for in a thread.

    ``size`` is about that of all pieces; ``target`` is the path in the guest they are for. Raises GuestError, and what the
    pieces raise.
    """
    beside = posixpath.dirname(target).rstrip("/")
    kept = f"{beside}/.tinamou-{words[1]}.line"
    parts = [f"{folder}/.tinamou-{words[1]}.part" for folder in (target.rstrip("/"), beside)]
    async with _tidied(way.agent, [kept, *parts]):
        if size is not None and size <= SMALL:
            data = await asyncio.to_thread(lambda: b"".join(pieces()))
            done = await way.agent.run(_argv("receive", ["-", *words]), input=data, timeout=_after(size), bare=True)
        else:
            done = await _put_much(way, words, pieces, size, kept)
        if done.status:
            raise _complaint(way, done)
        return done


async def _put_much(
    way: Way, words: Sequence[str], pieces: Callable[[], Iterable[bytes]], size: int | None, kept: str
) -> Completed:
    def sending(line: Line) -> None:
        if not line.receive(1):
            raise CutShortError("The guest did not take any of it")
        sent = 0
        for piece in pieces():
            line.send(piece)
            sent += len(piece)
            way.moved(sent)

    over = await _over_port(way, _argv("receive", [port.NAME, *words]), b"", sending, _after(size or 0))
    if over is not None:
        return over[1]
    await execute.run(way.agent, ["/bin/sh", "-c", 'umask 077; : >"$0"', kept])
    sent = await files.write(way.agent, kept, pieces())
    return await way.agent.run(_argv("receive", [kept, *words]), timeout=_after(sent), bare=True)


def _after(size: int) -> float:
    """How long a guest may take to put so many bytes in their place."""
    return 2 * PATIENCE_SECONDS + size / _SLOWEST


@contextlib.asynccontextmanager
async def _tidied(agent: Agent, paths: Sequence[str]) -> AsyncIterator[None]:
    """Where the block fails, what its script could not remove itself is removed in the guest."""
    try:
        yield
    except BaseException:
        await port.surely(_tidy(agent, paths))
        raise


async def _tidy(agent: Agent, paths: Sequence[str]) -> None:
    with contextlib.suppress(GuestError, TimeoutError):
        async with asyncio.timeout(execute.AFTERWARDS_SECONDS):
            await execute.poll(agent, await agent.start(["/bin/rm", "-rf", *paths]))


async def _over_port(
    way: Way, argv: Sequence[str], input: bytes, work: Callable[[Line], T], after: float
) -> tuple[T, Completed] | None:
    """Run a script whose end of the line is a port; ``work`` has the other end, in a thread.

    The script may take ``after`` seconds to end when the work is done. None when there can be no port.
    """
    watching: asyncio.Future[Completed] | None = None
    pid = -1
    try:
        async with port.plugged(way.directory) as end:
            if end is None:
                return None
            pid = await way.agent.start(argv, input=input)
            watching = asyncio.ensure_future(execute.poll(way.agent, pid))
            try:
                return await _both(way, Line(end), work, watching, after)
            except _NoPortError:
                return None
    finally:
        if watching is not None and not watching.done():
            await port.surely(_ended(way.agent, pid, watching))


class _NoPortError(Exception):
    """The port did not come up in the guest."""


async def _both(
    way: Way, line: Line, work: Callable[[Line], T], watching: asyncio.Future[Completed], after: float
) -> tuple[T, Completed]:
    working: asyncio.Future[T] = asyncio.ensure_future(asyncio.to_thread(work, line))
    both: list[asyncio.Future[Any]] = [working, watching]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if watching.done() and watching.result().status:
            line.end()
        result = await working
        async with asyncio.timeout(after):
            return result, await asyncio.shield(watching)
    except CutShortError as error:
        await asyncio.wait([watching], timeout=_LAST_WORDS_SECONDS)
        if not watching.done() or not watching.result().status:
            raise
        if watching.result().status == _NO_PORT:
            raise _NoPortError from None
        raise _complaint(way, watching.result()) from error
    except TimeoutError:
        why = f"all of it arrived, and after {after:g} s it was not done yet"
        raise TimeLimitError(f"{way.task}: the guest did not complete it", why=why) from None
    finally:
        line.end()
        await asyncio.gather(working, return_exceptions=True)


async def _ended(agent: Agent, pid: int, watching: asyncio.Future[Completed]) -> None:
    """A script that lost its line ends by itself, and tidies up; one that does not is killed."""
    await asyncio.wait([watching], timeout=execute.AFTERWARDS_SECONDS)
    if not watching.done():
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await execute.kill(agent, pid)


async def _spooled(way: Way, argv: Sequence[str], input: bytes, spool: IO[bytes], limit: int) -> Completed:
    """Run a script that sends to its stdout, and keep what it sends."""
    ticker, heard, said = Ticker(), [0], bytearray()

    def hear(piece: bytes) -> None:
        heard[0] += len(piece)
        if heard[0] <= limit:
            spool.write(piece)
            way.moved(heard[0])

    running = asyncio.ensure_future(way.agent.stream(argv, hear, said.extend, input=input))
    try:
        while not running.done():
            before = heard[0]
            await asyncio.wait([running], timeout=1.0)
            ticker.count(heard[0] - before, 1.0)
            if heard[0] > limit:
                raise GuestError("The guest sends more than it may", why=f"more than {limit} bytes arrived")
        done = running.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    from tinamou.guest.agent import Completed

    return Completed(done.status, b"", bytes(said))


def said(done: Completed) -> str:
    """What a script complained of: a guest chose the words."""
    words = done.stderr[-_LONGEST_WORDS:].decode(errors="replace").strip()
    return visible(words) or f"status {done.exit_status}"


def _complaint(way: Way, done: Completed) -> GuestError:
    if done.status == _DAMAGED:
        return GuestError(f"{way.task}: it arrived damaged", why="the sha256 of both ends differs", fix="try again")
    return GuestError(f"{way.task}: the guest could not complete it", why=said(done))
