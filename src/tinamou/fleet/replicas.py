"""Replicas: a machine's disks as they were a while ago, kept on another host for the day this one does not come back.

A replica is a shelf of backups (`tinamou.snapshots.backup_shelf`) that lies there: the first whole, each later one what was
written since. Here only the list stays, and the snapshot from which the next one goes on. What arrives is compared with the
checksums made here, is on stable storage and whole, or is not there: the one before stays what a machine is made of.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.digest import file_digest
from tinamou.errors import ImageError, StateError
from tinamou.fleet import hosts, remote
from tinamou.fleet.frames import Frames
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.machine.backups import back_up, restore
from tinamou.snapshots.backup_shelf import FILE, Backup, Shelf, files_in, read_shelf, save_shelf
from tinamou.spec import NAME
from tinamou.state import machines
from tinamou.state.record import Record, change, newest
from tinamou.system.closing import Closing
from tinamou.system.loop_thread import in_thread
from tinamou.system.paths import state_dir

__all__ = ["Replica", "Replicated", "Taken", "every", "keep", "remove", "replicate", "take"]

_PIECE = 8 << 20
_LONGEST = 48
"""So many replicas rest on one whole one; then all is copied again."""
_FROM = "from"
_FILE = re.compile(r"\d{4}/[\w.-]{1,100}(?:/[\w.-]{1,100})?")


@dataclass(frozen=True)
class Replicated:
    """A replica that is kept there: ``whole`` or what was written since the one before; bytes that went over; seconds."""

    name: str
    host: str
    number: int
    whole: bool
    size: int
    seconds: float


@dataclass(frozen=True)
class Replica:
    """A machine's newest replica on this host; ``at`` in seconds since 1970, ``age`` in seconds, ``size`` in bytes."""

    name: str
    host: str
    at: float
    age: float
    size: int


@dataclass(frozen=True)
class Taken:
    """A machine, off, that was made of a replica, and what is lost."""

    record: Record
    notes: tuple[str, ...]


async def replicate(name: str, host: str, *, full: bool = False, progress: Progress = silent) -> Replicated:
    """Bring the machine's replica on another host up to date, running or off. Raises TinamouError; the one before stays.

    Disks are as after a power cut. Everything is copied where the host has no replica to go on from, or with ``full``.
    """
    there, record, began = hosts.find(host), machines.find(name), time.monotonic()
    folder = _folder("to", host, name)
    async with remote.stream(there, [*there.command, "receive", "--replica"]) as pipe:
        frames = Frames(pipe.reader, pipe.writer)
        async with frames.beating():
            await frames.say("replica", name=name, host=os.uname().nodename, created=record.created)
            has, _ = await frames.hear("has")
            shelf = read_shelf(folder)
            last = shelf.backups[-1] if shelf.backups else None
            known = last is not None and (last.number, last.sums) == (has["number"], has["sums"])
            whole = full or not known or len(shelf.line(shelf.backups[-1])) > _LONGEST
            backup = await back_up(record, folder, full=whole, progress=progress)
            size = await _sent(frames, folder, backup, progress)
            await frames.hear("kept")
    await in_thread(_let_go, folder, backup)
    await in_thread(partial(change, newest(record), replicated={"host": host, "at": backup.created}))
    return Replicated(name, host, backup.number, not backup.parent, size, time.monotonic() - began)


async def _sent(frames: Frames, folder: Path, backup: Backup, progress: Progress) -> int:
    """Send the files a backup added, and last what it is; the bytes of them."""
    size, whole = 0, sum(path.stat().st_size for path in files_in(folder / f"{backup.number:04}"))
    for path in files_in(folder / f"{backup.number:04}"):
        for offset, piece in _pieces(path):
            await frames.say("piece", piece, file=str(path.relative_to(folder)), offset=offset)
            size += len(piece)
            progress("sending", size / whole if whole else None)
    await frames.say("backup", json.dumps(late.asdict(backup)).encode())
    return size


def _pieces(path: Path) -> Iterator[tuple[int, bytes]]:
    """What a file holds, without its holes; one empty piece for an empty file."""
    end = path.stat().st_size
    with path.open("rb") as file:
        yield 0, b""
        at = 0
        while at < end:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            stop = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            for begin in range(start, stop, _PIECE):
                yield begin, os.pread(file.fileno(), min(_PIECE, stop - begin), begin)
            at = stop
        if end and at <= end:
            yield end - 1, os.pread(file.fileno(), 1, end - 1)


def _let_go(folder: Path, backup: Backup) -> None:
    """The data are there: here their list is enough."""
    shelf = read_shelf(folder)
    save_shelf(late.replace(shelf, backups=shelf.line(backup)[::-1]))
    for path in folder.glob("[0-9]*"):
        shutil.rmtree(path)


async def keep(frames: Frames) -> None:
    """The side that keeps it: take one in. Raises StateError, ImageError; the replica is as before then."""
    said, _ = await frames.hear("replica")
    name = str(said["name"])
    if not re.fullmatch(NAME, name):
        raise StateError("the other host names no machine", why=name[:60])
    folder = _folder(_FROM, str(said["host"]), name)
    shelf = read_shelf(folder)
    last = shelf.backups[-1] if shelf.backups else None
    await frames.say("has", number=last.number if last else 0, sums=dict(last.sums) if last else {})
    while True:
        data, payload = await frames.hear_any(("piece", "backup"), 600.0)
        if data["what"] == "backup":
            break
        await in_thread(_write, folder, data, payload, last)
    await in_thread(_enter, folder, name, _backup(payload), shelf)
    await frames.say("kept")


def _write(folder: Path, data: dict[str, Any], payload: bytes, last: Backup | None) -> None:
    name, offset = str(data["file"]), int(data["offset"])
    if not _FILE.fullmatch(name) or ".." in name or offset < 0 or (last and int(name[:4]) <= last.number):
        raise StateError("the other host names no file of a replica", why=name[:60])
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with Closing(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)) as descriptor:
        os.pwrite(descriptor, payload, offset)


def _backup(payload: bytes) -> Backup:
    try:
        return Backup(**json.loads(payload))
    except (ValueError, TypeError) as error:
        raise StateError("the other host says what is no replica", why=str(error)[:200]) from error


def _enter(folder: Path, name: str, backup: Backup, shelf: Shelf) -> None:
    """Compare what came, and make it the newest; what it does not rest on is removed."""
    made = folder / f"{backup.number:04}"
    found = {str(path.relative_to(folder)): file_digest(path) for path in files_in(made)}
    if found != dict(backup.sums):
        shutil.rmtree(made, ignore_errors=True)
        raise ImageError(f"the replica of {name} is not what was sent", why="checksums differ", fix="replicate it again")
    line = shelf.line(shelf.find(backup.parent)) if backup.parent else ()
    save_shelf(Shelf(folder, name, (*line[::-1], backup)))
    kept = {f"{one.number:04}" for one in (*line, backup)}
    for path in folder.glob("[0-9]*"):
        if path.name not in kept:
            shutil.rmtree(path)


def every() -> list[Replica]:
    """The replicas that this host keeps, by name. Raises StateError for a damaged one."""
    found = []
    for path in sorted((state_dir() / "replicas" / _FROM).glob(f"*/*/{FILE}")):
        shelf = read_shelf(path.parent)
        at = shelf.find().created
        size = sum(one.stat().st_blocks * 512 for one in files_in(path.parent))
        found.append(Replica(shelf.machine, path.parts[-3], at, max(time.time() - at, 0.0), size))
    return sorted(found, key=lambda one: (one.name, -one.at))


async def take(name: str, *, progress: Progress = silent) -> Taken:
    """Make the machine of its newest replica on this host, off: its own host does not come back. Raises StateError."""
    replica = _find(name)
    record = await restore(_folder(_FROM, replica.host, name), name, progress=progress)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(replica.at))
    notes = [f"what {name} wrote on {replica.host} after {when}, {replica.age:.0f} s ago, is lost"]
    notes.append(f"{replica.host} must never start its own {name} again: tinamou rm {name} there")
    spec = dict(record.spec)
    if spec.pop("replicate", None):
        record = await in_thread(partial(change, record, spec=spec))
        notes.append(f"it was replicated to this host, and is to no other now: tinamou set {name} replicate.to=HOST")
    return Taken(record, tuple(notes))


def remove(name: str) -> None:
    """Forget the newest replica of that machine. Raises StateError."""
    shutil.rmtree(_folder(_FROM, _find(name).host, name))


def _find(name: str) -> Replica:
    for one in every():
        if one.name == name:
            return one
    raise StateError(f"no replica of {name} is kept here", fix="tinamou replica ls")


def _folder(way: str, host: str, name: str) -> Path:
    if not re.fullmatch(r"[\w][\w.-]{0,250}", host):
        raise StateError("the other host has no name", why=host[:60])
    return state_dir() / "replicas" / way / host / name
