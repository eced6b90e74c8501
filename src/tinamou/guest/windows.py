"""Commands and files of a Windows guest by its agent: PowerShell carries what an agent alone cannot say.

A list of words is started as it is: the agent quotes them as C programs of Windows read their command line. A text is for
PowerShell, and goes as -EncodedCommand, of which no character means anything to those in between. Source: Microsoft,
*about_PowerShell_exe*, *Parsing C command-line arguments*; qemu's qga/commands-win32.c.
"""

# ruff: noqa: ASYNC240 (looking at a local path takes microseconds)
from __future__ import annotations

import asyncio
import base64
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou.digest import sha256
from tinamou.errors import GuestError
from tinamou.guest import execute, files
from tinamou.guest.command import Command, Completed, Input, not_found, pieces
from tinamou.late import dataclass
from tinamou.parts.answers import quoted

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent

__all__ = ["Begun", "begun", "capture", "command_line", "encoded", "fetched", "sent"]

_SHELL = ("/bin/sh", "-c")
"""How a text for the guest's own shell comes in here."""
_POWERSHELL = ("powershell.exe", "-NoLogo", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-EncodedCommand")
_LONGEST = 32_766
"""Characters of a command line of Windows (source: CreateProcessW)."""
_QUIET = (
    "$ProgressPreference = 'SilentlyContinue'; [Console]::OutputEncoding = New-Object Text.UTF8Encoding $false; "
    "$OutputEncoding = [Console]::OutputEncoding"
)
"""Progress would be written to the error stream as XML, and text in the code page of the console."""
_END = "$ok = $?; if ($LASTEXITCODE) { exit $LASTEXITCODE }; exit [int](-not $ok)"
"""The status of the last program, else whether the last command went well."""
_MISSING, _NO_FOLDER = 9009, 9010
"""Statuses of our own: the first is cmd's for a command it does not find."""
_HASH_SECONDS = 600.0


@dataclass(frozen=True)
class Begun:
    """The words for the agent, and what its status means of how it began."""

    words: tuple[str, ...]
    carried: bool


def encoded(script: str) -> tuple[str, ...]:
    """PowerShell with a script. Raises GuestError for one longer than a command line may be."""
    words = (*_POWERSHELL, base64.b64encode(script.encode("utf-16-le")).decode())
    if sum(map(len, words)) + len(words) > _LONGEST:
        what = f"The script of {len(script)} characters is longer than a command line of Windows may be"
        raise GuestError(what, fix="copy it into the guest as a file, and run that: tinamou cp")
    return words


def command_line(argv: Sequence[str]) -> str:
    """One line that C programs take apart into these words again."""
    return " ".join(map(_word, argv))


def _word(word: str) -> str:
    """Backslashes count double before a quote, and before the one that closes."""
    if word and not re.search(r'[\s"]', word):
        return word
    return '"' + re.sub(r'(\\*)"', r'\1\1\\"', re.sub(r"(\\+)$", r"\1\1", word)) + '"'


def begun(command: Command) -> Begun:
    """How a command is begun. Raises GuestError for another user: Windows makes nobody another without a password."""
    if command.user:
        why = "Windows starts nothing as another user without a password"
        raise GuestError(f"The command cannot run as {command.user}", why=why, fix="leave the user out: the agent is SYSTEM")
    if command.argv[:2] == _SHELL and len(command.argv) == 3:
        return Begun(encoded("\n".join([_QUIET, *_place(command), command.argv[2], _END])), True)
    if not command.cwd and not command.env:
        return Begun(command.argv, False)
    return Begun(encoded("\n".join([_QUIET, *_place(command), _started(command.argv)])), True)


def _place(command: Command) -> Iterator[str]:
    """The folder it begins in, and its variables."""
    if command.cwd:
        folder = quoted(command.cwd)
        yield f"if (-not (Test-Path -LiteralPath {folder} -PathType Container)) {{ exit {_NO_FOLDER} }}"
        yield f"Set-Location -LiteralPath {folder}; [Environment]::CurrentDirectory = {folder}"
    for name, value in command.env.items():
        yield f"[Environment]::SetEnvironmentVariable({quoted(name)}, {quoted(value)})"


def _started(argv: Sequence[str]) -> str:
    """A program started with exactly these words: PowerShell's own way of starting one loses quotes (before 7.3)."""
    line = quoted(command_line(argv[1:]))
    return "\n".join(
        [
            f"$how = New-Object Diagnostics.ProcessStartInfo {quoted(argv[0])}, {line}",
            "$how.UseShellExecute = $false",
            f"try {{ $it = [Diagnostics.Process]::Start($how) }} catch {{ exit {_MISSING} }}",
            "$it.WaitForExit()",
            "exit $it.ExitCode",
        ]
    )


async def capture(agent: Agent, command: Command, input: Input, timeout: float | None) -> Completed:
    """Run a command to its end and keep its output, as much as the agent does. Raises GuestError."""
    how = begun(command)
    given = b"".join([piece async for piece in pieces(input, files.PIECE)]) if input is not None else None
    done = await execute.run(agent, how.words, input=given, timeout=timeout, called=command.argv)
    if how.carried and done.status == _NO_FOLDER and command.cwd:
        raise GuestError(f"The command cannot begin in the folder {command.cwd} of the guest", why="there is no such folder")
    if how.carried and done.status == _MISSING and not done.stdout and not done.stderr:
        raise not_found(command.argv[0], "there is no such program")
    return done


async def sent(agent: Agent, source: str | Path, target: str) -> tuple[int, bool]:
    """A file of this host into a Windows guest, complete under its name or not at all: its bytes, whether it was compared.

    ``target`` is its new name there, or with a closing slash the folder it goes into. Raises GuestError, OSError.
    """
    path = Path(source)
    if path.is_dir():
        fix = "make an archive of it, and unpack that there: Expand-Archive, tar.exe"
        raise GuestError(f"{path} is a folder, and only files are copied into a Windows guest", fix=fix)
    name = target + path.name if target.endswith(("/", "\\")) else target
    fresh, digest = f"{name}.{secrets.token_hex(4)}.new", sha256()
    size = 0
    async with files.opened(agent, fresh, "wb") as handle:
        async for piece in _read(path):
            await files.write_piece(agent, fresh, handle, piece)
            digest.update(piece)
            size += len(piece)
        await agent.command("guest-file-flush", {"handle": handle})
    there = await _hash(agent, fresh)
    if there is not None and there != digest.hexdigest():
        await _done(agent, f"Remove-Item -LiteralPath {quoted(fresh)}")
        raise GuestError(f"The file {path} was not copied to {name}", why="what arrived is not what was sent")
    moved = await _done(
        agent, f"Move-Item -LiteralPath {quoted(fresh)} -Destination {quoted(name)} -Force -ErrorAction Stop"
    )
    if moved.status:
        why = moved.stderr.decode(errors="replace")
        raise GuestError(f"The file {path} was copied to {fresh}, and could not be given its name", why=why)
    return size, there is not None


async def fetched(agent: Agent, source: str, target: str | Path, *, limit: int | None = None) -> tuple[int, bool]:
    """A file of a Windows guest to this host: its bytes, whether it was compared. Raises GuestError, OSError."""
    place = Path(target)
    if place.is_dir():
        place /= re.split(r"[\\/]", source)[-1] or "file"
    fresh, digest, size = place.with_name(f".{place.name}.{secrets.token_hex(4)}"), sha256(), 0
    try:
        with fresh.open("xb") as out:
            async for piece in files.read_pieces(agent, source):
                size += len(piece)
                if limit is not None and size > limit:
                    raise GuestError(f"The file {source} in the guest is larger than {limit} bytes")
                digest.update(piece)
                await asyncio.to_thread(out.write, piece)
        there = await _hash(agent, source)
        if there is not None and there != digest.hexdigest():
            raise GuestError(f"The file {source} was not copied", why="what arrived is not what is there")
        await asyncio.to_thread(os.replace, fresh, place)
    finally:
        fresh.unlink(missing_ok=True)
    return size, there is not None


async def _read(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, files.PIECE):
            yield piece


async def _hash(agent: Agent, path: str) -> str | None:
    """SHA-256 of a file of the guest, None where it does not say."""
    done = await _done(agent, f"(Get-FileHash -Algorithm SHA256 -LiteralPath {quoted(path)} -ErrorAction Stop).Hash")
    said = done.text.strip().lower()
    return said if not done.status and re.fullmatch(r"[0-9a-f]{64}", said) else None


async def _done(agent: Agent, script: str) -> Completed:
    return await execute.run(agent, encoded(f"{_QUIET}\n{script}"), timeout=_HASH_SECONDS)
