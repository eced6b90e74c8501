"""The whole state of a machine as one compressed stream, memory included: written by one QEMU, read by another.

It is the ordinary migration stream of QEMU, on every version: a mapped-ram file would be as large as the memory, could not
be compressed on its way, and QEMU 7.2 has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from tinamou.control import Session
from tinamou.control.answers import record, records, text
from tinamou.control.commands import Migration, getfd, migrate, migrate_incoming, migration, stop, wait_migrated
from tinamou.errors import ControlError, StateError
from tinamou.system.closing import Closing
from tinamou.system.exec import CommandError
from tinamou.system.zstd import Piped, compressing, decompressing

__all__ = ["blockers", "load", "plugged", "pour", "saving_seconds"]

PATIENCE_SECONDS = 60.0
"""How long a machine that goes on may write to its memory faster than it is saved, before it is stopped for the rest."""

_RATE = 20 << 20
"""Bytes of compressed state a second that even a slow host loads."""

_SLOWEST = 4 << 20
"""Bytes of memory a second that even a slow host saves."""

_ENDING_SECONDS = 5.0
"""How long the compressor, which closes its end first, takes to say why at most."""

AtRest = Callable[[], Awaitable[None]]


async def _nothing() -> None:
    """What is done at rest, where there is nothing to do."""


def saving_seconds(memory: int) -> float:
    """How long saving a machine of so many bytes of memory may take, whatever QEMU says of its progress."""
    return 2 * PATIENCE_SECONDS + memory / _SLOWEST


async def pour(session: Session, path: Path, uid: int | None, at_rest: AtRest = _nothing, *, seconds: float) -> None:
    """Write the whole state to a new file; the machine stands still afterwards, and `cont` lets it run on.

    The capability ``pause-before-switchover`` must be on; ``at_rest`` is called when the machine stands still. Raises
    ControlError, also when it takes more than ``seconds``, and StateError; the caller lets the machine run on and removes
    the file.
    """
    with Closing(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)) as target:
        with _by_zstd(compressing(target, uid)) as piped:
            await getfd(session, piped.end, "state")
            piped.let_go()
            try:
                async with asyncio.timeout(seconds):
                    await migrate(session, "fd:state")
                    await _at_the_switch(session)
                    await at_rest()
                    await session.execute("migrate-continue", state="pre-switchover")
                    await wait_migrated(session)
            except ControlError as error:
                raise await _failed(error, path, piped) from error
            except TimeoutError:
                raise ControlError(f"QEMU did not save the machine's state within {seconds:.0f} s") from None
            await _finish(piped, path)
        await asyncio.to_thread(os.fsync, target)


async def _at_the_switch(session: Session) -> None:
    """Return when only the last of the memory is left and the machine stands still."""
    began = asyncio.get_running_loop().time()
    stopped = False
    while (now := await migration(session)).status != "pre-switchover":
        if now.status in ("completed", "failed", "cancelled"):
            raise ControlError(f"QEMU did not save the machine's state: {now.status}", why=now.error)
        if not stopped and _never_ends(now, asyncio.get_running_loop().time() - began):
            await stop(session)
            stopped = True
        await asyncio.sleep(0.002)


def _never_ends(now: Migration, seconds: float) -> bool:
    return seconds > PATIENCE_SECONDS or (now.total > 0 and now.transferred > 3 * now.total)


@contextlib.contextmanager
def _by_zstd(piped: contextlib.AbstractContextManager[Piped]) -> Iterator[Piped]:
    try:
        with piped as one:
            yield one
    except FileNotFoundError as error:
        raise StateError("a state with its memory is compressed by zstd", why=str(error), fix="install zstd") from error


async def _failed(error: ControlError, path: Path, piped: Piped) -> StateError | ControlError:
    """The reason is the compressor's, when that is ending; QEMU only knows that nobody listens."""
    if not await asyncio.to_thread(piped.ends_within, _ENDING_SECONDS):
        return error
    try:
        await _finish(piped, path)
    except StateError as reason:
        return reason
    return error


async def _finish(piped: Piped, path: Path) -> None:
    try:
        await asyncio.to_thread(piped.finish)
    except CommandError as error:
        space = os.statvfs(path.parent)
        fix = f"{space.f_bavail * space.f_frsize >> 20} MiB are free there: make room"
        raise StateError(f"the state cannot be written to {path.parent}", why=error.stderr.strip(), fix=fix) from error


async def load(session: Session, path: Path, uid: int | None) -> None:
    """Read a whole state into a QEMU that waits for one (``-incoming defer``). Raises ControlError; end it then."""
    with Closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as source, _by_zstd(decompressing(source, uid)) as piped:
        await getfd(session, piped.end, "state")
        piped.let_go()
        await migrate_incoming(session, "fd:state")
        try:
            await wait_migrated(session, 60.0 + os.fstat(source).st_size / _RATE)
        except TimeoutError:
            raise ControlError(f"QEMU did not load {path} in time", why="it takes more state than there is") from None


async def blockers(session: Session) -> list[str]:
    """Why QEMU says that the machine's state cannot be saved; empty when it can."""
    reasons = record(await session.execute("query-migrate")).get("blocked-reasons", [])
    return [str(reason) for reason in reasons] if isinstance(reasons, list) else []


async def plugged(session: Session) -> set[str]:
    """The ids of the devices the machine has now."""
    found = records(await session.execute("qom-list", path="/machine/peripheral"))
    return {text(one, "name") for one in found if text(one, "type").startswith("child<")}
