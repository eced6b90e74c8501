"""Copying files, folders and tar archives into and out of a guest by its agent, checked at both ends; or else by scp."""

# ruff: noqa: ASYNC240 (looking at a local path takes microseconds; what takes long runs in a thread)
from __future__ import annotations

import asyncio
import os
import posixpath
import re
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou.errors import GuestError, Problem, SpecError
from tinamou.guest.archive import Packing, opened
from tinamou.guest.carry import exchange, wire
from tinamou.guest.carry.holes import stretches
from tinamou.guest.carry.placing import room
from tinamou.guest.command import is_windows_path
from tinamou.guest.ssh import scp_argv, until_served
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.system.closing import Closing

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent
    from tinamou.guest.carry.feed import Feed
    from tinamou.guest.ssh import SshTarget

__all__ = ["Copied", "End", "by_scp", "into_guest", "out_of_guest", "parse_end", "tar_into_guest", "tar_out_of_guest"]

_KINDS = ("file", "folder", "special", "dangling", "nothing")
_NO_LIMIT = 1 << 62
_OVERHEAD = 1 << 20
"""Bytes beside those of the files that a limit does not count."""
_TELL_SECONDS = 0.1
_SERVER_SECONDS = 120.0


@dataclass(frozen=True)
class End:
    """One end of a copy: a path on this host (``machine`` empty), or in a machine's guest."""

    machine: str
    path: str


@dataclass(frozen=True)
class Copied:
    """What a copy did.

    ``bytes`` that were carried (of a file: its data, holes left out), ``verified`` when both ends computed the same sha256,
    ``left_out`` the names of devices and pipes, which are not copied from a guest.
    """

    bytes: int
    verified: bool
    left_out: tuple[str, ...] = ()


def parse_end(text: str) -> End:
    """``NAME:/path`` or ``NAME:C:/path`` is in a guest, anything else here (``./a:/b`` for a file). Raises SpecError."""
    name, colon, path = text.partition(":")
    if is_windows_path(path) and "/" not in name and len(name) > 1:
        return End(name, path)
    if not colon or "/" in name or not name:
        return End("", text)
    if not path.startswith("/"):
        problem = Problem("path", text, "a path in a guest begins with /", f"write {name}:/{path or '…'}, or ./{text}")
        raise SpecError("This path cannot be copied", problems=[problem])
    return End(name, path)


async def into_guest(
    agent: Agent, source: str | Path, target: str, *, directory: str = "", progress: Progress = silent
) -> Copied:
    """Copy a file or folder of this host into a guest. ``target`` is its new name there, or a folder it goes into.

    What is in a folder, without the folder itself, is ``FOLDER/.`` (as text). Modes are kept (set-user-id bits too, when
    it is a single file), owners are root's. A file or new folder appears complete under its name or not at all; a folder
    that is there grows, and nothing in it becomes another kind of thing. ``directory`` is that of the machine's files: with
    it a port of its own carries the data, many times quicker than the agent. Raises GuestError; OSError when the source
    cannot be read.
    """
    if is_windows_path(target):
        from tinamou.guest import windows

        return Copied(*await windows.sent(agent, source, target))
    given = os.fspath(source)
    path = os.path.realpath(given)
    spot = await _spot(agent, target, "" if given.endswith("/.") else posixpath.basename(os.path.abspath(given)))  # noqa: PTH100
    kind = "folder" if Path(path).is_dir() else "file"
    if spot.kind not in (kind, "nothing"):
        raise GuestError(f"{spot.path} is a {spot.kind} in the guest, and {given} is a {kind}")
    if kind == "folder":
        packing = await asyncio.to_thread(Packing, path)
        size = packing.size + sum(_data_in(one) for _, one in packing.sparse)
        unit, mode, pieces = wire.UNIT, f"{Path(path).stat().st_mode & 0o7777:o}", partial(wire.folder_in, packing)
    else:
        size, unit, mode = _data_in(path), wire.unit_for(Path(path).stat().st_size), "600"
        pieces = partial(wire.file_in, path, unit)
    way = _way(agent, directory, f"The {kind} {given} was not copied to {target}", size, progress)
    words = (kind, secrets.token_hex(8), str(unit), spot.path, mode)
    done = await exchange.put(way, words, pieces, size=size, target=spot.path)
    return Copied(size, done.text == "verified")


async def tar_into_guest(
    agent: Agent, source: int, target: str, *, directory: str = "", progress: Progress = silent
) -> Copied:
    """Unpack a tar archive from a descriptor in a folder of the guest, as `into_guest` copies what is in a folder.

    Owners are root's. Raises GuestError, OSError; SpecError for what is no tar archive.
    """
    spot = await _spot(agent, target)
    if spot.kind != "folder":
        fix = f"make it first: tinamou exec NAME -- mkdir {shlex.quote(target)}; {_unpacked_by_nobody(target)}"
        raise GuestError(f"{target} is no folder in the guest, to unpack an archive in", fix=fix)
    way = _way(agent, directory, f"The archive was not unpacked in {target}", None, progress)
    words = ("folder", secrets.token_hex(8), str(wire.UNIT), spot.path, "755")
    count = [0]

    def counted() -> Iterator[bytes]:
        for piece in wire.tar_in(source):
            count[0] += len(piece)
            yield piece

    try:
        done = await exchange.put(way, words, counted, size=None, target=spot.path)
    except SpecError as error:
        error.fix = f"{error.fix}; {_unpacked_by_nobody(posixpath.join(target, 'FILE'))}"
        raise
    return Copied(count[0], done.text == "verified")


def _unpacked_by_nobody(path: str) -> str:
    """How what is no archive, or shall stay one, becomes a file of the guest as it is."""
    return f"bytes as they are: tinamou exec NAME -- sh -c {shlex.quote(f'cat >{shlex.quote(path)}')} <FILE"


async def out_of_guest(
    agent: Agent,
    source: str,
    target: str | Path,
    *,
    directory: str = "",
    limit: int | None = None,
    progress: Progress = silent,
) -> Copied:
    """Copy a file or folder of a guest to this host. ``target`` is its new name here, or a folder it goes into.

    What is in a folder, without the folder itself, is ``FOLDER/.``. Modes are kept but for set-user-id bits; what is made
    here belongs to the caller, and no link here is gone through but those in ``target`` itself. A guest may send ``limit``
    bytes, or if that is None nine tenths of what is free. ``directory`` as for `into_guest`. Raises GuestError, OSError.
    """
    if is_windows_path(source):
        from tinamou.guest import windows

        return Copied(*await windows.fetched(agent, source, target, limit=limit))
    spot = await _spot(agent, source)
    place = Path(os.path.realpath(target))
    if place.is_dir() and not source.endswith("/."):
        place = place / (posixpath.basename(posixpath.normpath(source)) or "root")
    if spot.kind == "folder":
        if place.exists() and not place.is_dir():
            raise GuestError(f"{place} is a file, and {source} in the guest is a folder")
        place.parent.mkdir(parents=True, exist_ok=True)
    elif spot.kind == "file":
        place = Path(os.path.realpath(place))
    else:
        raise GuestError(f"There is no file {source} in the guest", why=_reason(spot.kind))
    free, files = room(place.parent)
    alone = spot.kind == "file"
    unit = wire.unit_for(spot.size) if alone else wire.UNIT

    def consume(feed: Feed) -> wire.Sent:
        return wire.read_file(feed, place, unit) if alone else wire.read_folder(feed, place, files)

    words = (spot.kind, secrets.token_hex(8), str(unit), spot.path, "")
    way = _way(agent, directory, f"The {spot.kind} {source} was not copied", spot.size if alone else None, progress)
    small, bound = alone and spot.size <= exchange.SMALL, free if limit is None else limit
    helper = exchange.program(spot.arch)
    sent, _ = await exchange.fetch(way, words, helper, consume, limit=bound + _OVERHEAD, small=small)
    return _copied(sent)


async def tar_out_of_guest(
    agent: Agent, source: str, target: int, *, directory: str = "", progress: Progress = silent
) -> Copied:
    """Write a file or folder of a guest as a tar archive to a descriptor, as the guest's tar makes it.

    Its names begin with that of the file or folder, or with nothing where ``source`` is ``FOLDER/.``. Raises GuestError,
    OSError.
    """
    spot = await _spot(agent, source)
    if spot.kind not in ("file", "folder"):
        raise GuestError(f"There is no file {source} in the guest", why=_reason(spot.kind))
    way = _way(agent, directory, f"{source} was not sent", None, progress)
    folder, name = posixpath.split(spot.path)
    if source.endswith("/.") or not name:
        folder, name = spot.path, "."
    words = ("archive", secrets.token_hex(8), str(wire.UNIT), folder, name)
    sent, _ = await exchange.fetch(
        way, words, b"", lambda feed: wire.read_archive(feed, target), limit=_NO_LIMIT, small=False
    )
    return _copied(sent)


async def by_scp(
    target: SshTarget,
    sources: Sequence[str],
    destination: str,
    *,
    into: bool,
    seconds: float = _SERVER_SECONDS,
    waits: Callable[[], None] = lambda: None,
) -> None:
    """Copy over ssh, for guests without an agent; scp's own rules.

    The guest's server is waited for, up to ``seconds``; ``waits`` is called where it is. Raises GuestError.
    """
    from tinamou.system.exec_async import communicate

    over = threading.Event()
    try:
        await asyncio.to_thread(until_served, target, seconds, lambda: not over.is_set(), waits)
    finally:
        over.set()
    argv = scp_argv(target, sources, destination, into_guest=into)
    status, out, err = await communicate(argv)
    if status:
        raise GuestError("scp could not copy", why=(err or out).decode(errors="replace").strip())


@dataclass(frozen=True)
class _Spot:
    """What a path of the guest is, by the guest's own word; ``path`` has no links in it, ``size`` is that of a file."""

    kind: str
    arch: str
    size: int
    path: str


async def _spot(agent: Agent, path: str, name: str = "") -> _Spot:
    if not path.startswith("/"):
        raise GuestError(f"The path {path!r} is not complete", fix="a path in a guest begins with /")
    kind, arch, state, found = await exchange.probe(agent, path, name)
    if kind not in _KINDS or not found.startswith("/"):
        raise GuestError(f"The guest does not tell what {path} is", why=f"it says {kind[:40]!r}, {found[:60]!r}")
    numbers = re.fullmatch(r"[0-7]+ -?[0-9]+ ([0-9]{1,18})", state)
    if kind == "file" and not numbers:
        raise GuestError(f"The guest does not tell how large {path} is", why=f"it says {state[:60]!r}")
    return _Spot(kind, arch, int(numbers[1]) if numbers else 0, found.rstrip("/") or "/")


def _reason(kind: str) -> str:
    return {"special": "it is a device, a pipe or a socket", "dangling": "it is a link to nothing"}.get(kind, "")


def _data_in(path: str) -> int:
    """Bytes of a file that are not in holes."""
    with Closing(opened(path)) as file:
        size = os.fstat(file).st_size
        unit = wire.unit_for(size)
        return sum(min((first + count) * unit, size) - first * unit for first, count in stretches(file, unit))


def _way(agent: Agent, directory: str, task: str, size: int | None, progress: Progress) -> exchange.Way:
    told = [0.0]

    def moved(count: int) -> None:
        if progress is not silent and (now := time.monotonic()) - told[0] > _TELL_SECONDS:
            told[0] = now
            progress(f"copying: {count >> 20} MiB", min(count / size, 0.99) if size else None)

    return exchange.Way(agent, directory, task, moved)


def _copied(sent: wire.Sent) -> Copied:
    return Copied(sent.size, sent.verified, tuple(name.decode(errors="backslashreplace") for name in sent.dropped))
