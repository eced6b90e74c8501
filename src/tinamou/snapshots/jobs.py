"""Long block operations of a running QEMU: jobs with progress and cancel, flushed before they change a header."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from tinamou.control import Session
from tinamou.control.commands import Job, jobs, monitor
from tinamou.errors import ControlError, if_full
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.system.durable import sync_file

__all__ = ["Target", "cancel", "drop_orphans", "flush", "run_job"]

OURS = ("stream-disk", "commit-disk")
"""How the names of our jobs begin; the machine's lock says that none of them has an owner while we hold it."""

SPEED = 64 << 20
"""Bytes a second that a job copies, so that the guest gets its turn."""

PATIENCE = 60.0
"""Seconds after which a job should be done, however large."""

_POLL = 0.05

_SLOWEST = 1 << 20
"""Bytes a second that even a slow host copies: a job that takes longer will never end, whatever QEMU says of it."""


@dataclass(frozen=True)
class Target:
    """What a job writes to: a node, the file it writes, and how many bytes come at most."""

    node: str
    file: Path
    amount: int


async def run_job(
    session: Session,
    command: str,
    name: str,
    arguments: Mapping[str, object],
    *,
    target: Target,
    progress: Progress = silent,
) -> None:
    """Run a block job that writes to ``target`` to its end; cancelled with the calling task, and then harmless.

    QEMU changes headers and graph when it finalizes a job, while tables of ``target`` may still be in its memory alone: a
    killed QEMU would lose them. So ``target`` is flushed first. The guest stands still for that flush, so the file is
    synchronised by us on the way, piece by piece, and the job does not copy faster than `SPEED`, or what a large one needs
    to be done in `PATIENCE`. Raises ControlError when QEMU refuses or the job fails.
    """
    speed = max(SPEED, int(target.amount / PATIENCE))
    patient = {"job-id": name, "auto-finalize": False, "auto-dismiss": False, "speed": speed}
    await session.execute(command, {**patient, **arguments})
    try:
        job = await _until_over(session, name, target, progress)
    except BaseException:
        await asyncio.shield(cancel(session, name))
        raise
    await session.execute("job-dismiss", id=name)
    if job.error:
        raise ControlError(f"{command} of {name} failed", why=job.error, fix=if_full(job.error))


_SAID = {"stream": "merging files", "commit": "merging files", "backup": "copying", "mirror": "copying"}
"""What a job does, for people."""


async def _until_over(session: Session, name: str, target: Target, progress: Progress) -> Job:
    with session.listen("JOB_STATUS_CHANGE") as changes:
        began, longest = time.monotonic(), 10 * PATIENCE + target.amount / _SLOWEST
        while time.monotonic() - began < longest:
            job = next((one for one in await jobs(session) if one.id == name), None)
            if job is None or job.status == "concluded":
                return job or Job(name, "", "null", 0, 0, "")
            progress(_SAID.get(job.kind, job.kind), job.progress / job.total if job.total else None)
            await asyncio.to_thread(sync_file, target.file)
            if job.status == "pending":
                await flush(session, target.node)
                await session.execute("job-finalize", id=name)
            with contextlib.suppress(TimeoutError):
                await changes.next(_POLL)
    raise ControlError(f"the job {name} does not end", why=f"it has run for {longest:.0f} s")


async def drop_orphans(session: Session) -> bool:
    """End jobs whose tinamou was killed: they would wait for it for ever, and keep their files from everybody else.

    Tells whether there were any.
    """
    orphans = [job.id for job in await jobs(session) if job.id.startswith(OURS)]
    for orphan in orphans:
        await cancel(session, orphan)
    return bool(orphans)


async def flush(session: Session, node: str) -> None:
    """Put everything written to a node on stable storage, tables included. Raises ControlError."""
    complaint = await monitor(session, f'qemu-io {node} "flush"')
    if complaint.strip():
        raise ControlError(f"{node} cannot be flushed", why=complaint.strip())


async def cancel(session: Session, name: str) -> None:
    """End a job early and forget it; what it has copied so far stays valid and is not copied again."""
    with contextlib.suppress(ControlError):
        await session.execute("job-cancel", id=name)
    for _ in range(200):
        job = next((one for one in await jobs(session) if one.id == name), None)
        if job is None:
            return
        if job.status == "concluded":
            await session.execute("job-dismiss", id=name)
            return
        await asyncio.sleep(_POLL)
    raise ControlError(f"the job {name} does not end", why="a request to the disk below it does not return")
