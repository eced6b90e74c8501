"""Copying files and folders into and out of a guest: by its agent, checked with sha256 at both ends, or else by scp."""

# ruff: noqa: ASYNC240 (looking at a local path takes microseconds; what takes long runs in a thread)
from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tinamou.errors import GuestError, Problem, SpecError
from tinamou.guest import archive, files
from tinamou.late import dataclass

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent, Completed
    from tinamou.guest.ssh import SshTarget

__all__ = ["Copied", "End", "by_scp", "into_guest", "out_of_guest", "parse_end"]

_DAMAGED = 71


@dataclass(frozen=True)
class End:
    """One end of a copy: a path on this host (``machine`` empty), or in a machine's guest."""

    machine: str
    path: str


@dataclass(frozen=True)
class Copied:
    """What a copy did: ``bytes`` carried, ``verified`` when both ends computed the same sha256."""

    bytes: int
    verified: bool


def parse_end(text: str) -> End:
    """``NAME:/path`` is in a guest, anything else on this host (write ``./a:/b`` for a file so named). Raises SpecError."""
    name, colon, path = text.partition(":")
    if not colon or "/" in name or not name:
        return End("", text)
    if not path.startswith("/"):
        problem = Problem("path", text, "a path in a guest begins with /", f"write {name}:/{path or '…'}, or ./{text}")
        raise SpecError("This path cannot be copied", problems=[problem])
    return End(name, path)


async def into_guest(agent: Agent, source: Path, target: str) -> Copied:
    """Copy a file or folder of this host into a guest. ``target`` is its new name there, or a folder it goes into.

    Modes are kept (set-user-id bits too, when it is a single file), owners are root's. A file appears complete under its
    name or not at all. Raises GuestError; OSError when the source cannot be read.
    """
    kind = await _kind(agent, target)
    if kind == "folder" or target.endswith("/"):
        target = f"{target.rstrip('/')}/{source.resolve().name}"
        kind = await _kind(agent, target)
    if source.is_dir():
        if kind == "file":
            raise GuestError(f"{target} is a file in the guest, and {source} is a folder")
        return await _folder_in(agent, source, target)
    return await _file_in(agent, source, target)


async def out_of_guest(agent: Agent, source: str, target: Path) -> Copied:
    """Copy a file or folder of a guest to this host. ``target`` is its new name here, or a folder it goes into.

    Modes are kept but for set-user-id bits; what is made here belongs to the caller. Raises GuestError, OSError.
    """
    kind = await _kind(agent, source)
    if kind == "nothing":
        raise GuestError(f"There is no file {source} in the guest")
    if target.is_dir():
        target = target / (source.rstrip("/").rpartition("/")[2] or "root")
    if kind == "folder":
        if target.exists() and not target.is_dir():
            raise GuestError(f"{target} is a file, and {source} in the guest is a folder")
        return await _folder_out(agent, source, target)
    return await _file_out(agent, source, target)


async def by_scp(target: SshTarget, sources: Sequence[str], destination: str, *, into: bool) -> None:
    """Copy over ssh, for guests without an agent; scp's own rules. Raises GuestError."""
    from tinamou.guest.ssh import scp_argv
    from tinamou.system.exec_async import communicate

    argv = scp_argv(target, sources, destination, into_guest=into)
    status, out, err = await communicate(argv)
    if status:
        raise GuestError("scp could not copy", why=(err or out).decode(errors="replace").strip())


async def _kind(agent: Agent, path: str) -> str:
    if not path.startswith("/"):
        raise GuestError(f"The path {path!r} is not complete", fix="a path in a guest begins with /")
    script = 'if [ -d "$0" ]; then echo folder; elif [ -e "$0" ] || [ -L "$0" ]; then echo file; else echo nothing; fi'
    return (await _shell(agent, script, path)).text


async def _shell(agent: Agent, script: str, *arguments: str) -> Completed:
    return await agent.run(["/bin/sh", "-c", script, *arguments], timeout=3600.0)


def _complain(what: str, done: Completed) -> GuestError:
    if done.status == _DAMAGED:
        return GuestError(f"{what}: it arrived damaged", why="the sha256 of both ends differs", fix="try again")
    said = done.stderr.decode(errors="replace").strip() or f"status {done.exit_status}"
    return GuestError(f"{what}: the guest could not complete it", why=said)


_CHECK = 'sum=$(sha256sum "$0" 2>/dev/null) && { [ "${sum%% *}" = "$1" ] || exit 71; echo verified; }; '
_FILE_IN = _CHECK + 'touch -m -d "@$3" "$0" 2>/dev/null; chmod "$2" "$0" && mv -f "$0" "$4"'
_FOLDER_IN = _CHECK + 'mkdir -p "$2" && chmod "$3" "$2" && tar -x -p -f "$0" -C "$2"'

_FOLDER_OUT = (
    'umask 077; for d in "${TMPDIR:-/tmp}" /var/tmp; do [ -w "$d" ] && break; done; '
    'tar -c -f "$d/$1" -C "$0" . && echo "$d/$1" || { rm -f "$d/$1"; exit 1; }'
)


async def _file_in(agent: Agent, source: Path, target: str) -> Copied:
    part = f"{target}.{secrets.token_hex(4)}.part"
    state = source.stat()
    digest = hashlib.sha256()
    try:
        with source.open("rb") as file:
            size = await files.write(agent, part, _pieces(file, digest))
        mode = f"{state.st_mode & 0o7777:o}"
        done = await _shell(agent, _FILE_IN, part, digest.hexdigest(), mode, str(int(state.st_mtime)), target)
        if done.status:
            raise _complain(f"The file {source} was not copied to {target}", done)
        return Copied(size, done.text == "verified")
    except BaseException:
        await _remove(agent, part)
        raise


async def _folder_in(agent: Agent, source: Path, target: str) -> Copied:
    part = f"{target.rstrip('/')}.{secrets.token_hex(4)}.part"
    digest = hashlib.sha256()
    with tempfile.TemporaryFile() as packed:
        await asyncio.to_thread(archive.pack, source, packed)
        packed.seek(0)
        try:
            size = await files.write(agent, part, _pieces(packed, digest))
            mode = f"{source.stat().st_mode & 0o7777:o}"
            done = await _shell(agent, _FOLDER_IN, part, digest.hexdigest(), target, mode)
            if done.status:
                raise _complain(f"The folder {source} was not copied to {target}", done)
        finally:
            await _remove(agent, part)
    return Copied(size, done.text == "verified")


async def _file_out(agent: Agent, source: str, target: Path) -> Copied:
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            copied = await _receive(agent, source, file)
        state = await _shell(agent, 'stat -L -c "%a %Y" "$0"', source)
        if not state.status:
            mode, seconds = state.text.split()
            part.chmod(int(mode, 8) & 0o777)
            os.utime(part, (int(seconds), int(seconds)))
        part.replace(target)
        return copied
    finally:
        part.unlink(missing_ok=True)


async def _folder_out(agent: Agent, source: str, target: Path) -> Copied:
    name = f"tinamou-{secrets.token_hex(8)}.tar"
    made = await _shell(agent, _FOLDER_OUT, source, name)
    if made.status:
        raise _complain(f"The folder {source} was not packed", made)
    try:
        with tempfile.TemporaryFile() as packed:
            copied = await _receive(agent, made.text, packed)
            packed.seek(0)
            target.mkdir(parents=True, exist_ok=True)
            await asyncio.to_thread(archive.unpack, packed, target)
    finally:
        await _remove(agent, made.text)
    return copied


async def _receive(agent: Agent, source: str, into: IO[bytes]) -> Copied:
    digest = hashlib.sha256()
    size = 0
    async for piece in files.read_pieces(agent, source):
        digest.update(piece)
        into.write(piece)
        size += len(piece)
    theirs = await _shell(agent, 'sha256sum "$0"', source)
    if theirs.status:
        return Copied(size, False)
    if theirs.text.lstrip("\\").split()[0] != digest.hexdigest():
        raise GuestError(
            f"The file {source} arrived damaged",
            why="the sha256 of both ends differs, or it changed meanwhile",
            fix="try again",
        )
    return Copied(size, True)


async def _remove(agent: Agent, path: str) -> None:
    with contextlib.suppress(GuestError):
        await _shell(agent, 'rm -f "$0"', path)


def _pieces(file: IO[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    while piece := file.read(files.PIECE):
        digest.update(piece)
        yield piece
