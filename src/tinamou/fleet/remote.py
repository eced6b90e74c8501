"""Running a command, or tinamou itself, on another host; carrying bytes and sockets there and back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tinamou.errors import HostError, error_from
from tinamou.fleet import ssh
from tinamou.fleet.hosts import Host
from tinamou.fleet.ssh import RefusedLoginError, SilentHostError, WrongKeyError
from tinamou.late import dataclass
from tinamou.system import exec_async
from tinamou.version import __version__

__all__ = [
    "NoTinamouError",
    "OtherVersionError",
    "Pipe",
    "RefusedLoginError",
    "Result",
    "SilentHostError",
    "WrongKeyError",
    "call_json",
    "forward",
    "run",
    "stream",
]

SECONDS = 30.0
_MOST = 64 << 20
_PIECE = 1 << 16
_GONE = 127

T = TypeVar("T")


class NoTinamouError(HostError):
    """The host answers, and there is no tinamou by that command."""


class OtherVersionError(HostError):
    """The tinamou there is of another version, which may mean other things by the same words."""


@dataclass(frozen=True)
class Result:
    """How a command ended there."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Its output."""
        return self.stdout.decode(errors="replace")


@dataclass(frozen=True)
class Pipe:
    """A command that runs there: what is written to ``writer`` it reads, what it writes is read from ``reader``.

    ``errors`` is the end of what it has written to its standard error so far.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    errors: bytearray
    process: asyncio.subprocess.Process


async def run(
    host: Host, argv: Sequence[str], *, input: bytes | None = None, timeout: float = SECONDS, most: int = _MOST
) -> Result:
    """Run a command there to its end. ``timeout`` is in seconds and holds for all of it, connecting too.

    ``most`` bounds what is kept of stdout and of stderr, in bytes. Raises SilentHostError, WrongKeyError, RefusedLoginError.
    When it is not waited for any more the line is cut; a command there that reads or writes nothing goes on.
    """
    with ssh.client(host, connect=timeout) as client:
        try:
            async with (
                asyncio.timeout(timeout),
                exec_async.piped(client.argv(argv, "-T"), environment=ssh.environment()) as done,
            ):
                assert done.stdin and done.stdout and done.stderr
                feeding = asyncio.ensure_future(_feed(done.stdin, input or b""))
                try:
                    out, err = await asyncio.gather(_bounded(host, done.stdout, most), _bounded(host, done.stderr, most))
                finally:
                    feeding.cancel()
                result = Result(await done.wait(), out, err)
        except TimeoutError:
            raise ssh.failure(host, client.said(), f"no end within {timeout:g} s") from None
        client.check(result.status)
        return result


async def _feed(stdin: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        stdin.write(data)
        await stdin.drain()
        stdin.close()


async def _bounded(host: Host, reader: asyncio.StreamReader, most: int) -> bytes:
    found = bytearray()
    while piece := await reader.read(_PIECE):
        found += piece
        if len(found) > most:
            raise HostError(f"{host.name} says more than the {most} bytes that are listened to")
    return bytes(found)


async def call_json(host: Host, argv: Sequence[str], *, timeout: float = SECONDS) -> Any:
    """What ``tinamou ARGV --json`` there prints, as data. An error of the tinamou there is raised here, of the same family.

    Nothing is done there by a tinamou of another version (major and minor number). Raises OtherVersionError,
    NoTinamouError, and as `run`.
    """
    at = list(argv).index("--") if "--" in argv else len(argv)
    words = [*argv[:at], *([] if "--json" in argv[:at] else ["--json"]), *argv[at:]]
    done = await run(host, ["sh", "-c", _checked(host, words)], timeout=timeout)
    first, _, said = done.text.partition("\n")
    status, _, version = first.partition(" ")
    if status != "0":
        why = (done.stderr or done.stdout).decode(errors="replace").strip()[-500:]
        raise NoTinamouError(f"{shlex.join(host.command)} is no tinamou on {host.name}", why=why, fix=_fix(host))
    if not _same(version):
        fix = "bring both to the same version"
        raise OtherVersionError(f"{host.name} has tinamou {version[:40]}, and this is {__version__}", fix=fix)
    return _data(host, done, said)


def _fix(host: Host) -> str:
    return f"install it there, or name its command: tinamou host add {host.name} … --command '/path/to/tinamou'"


def _series() -> str:
    return ".".join(__version__.split(".")[:2])


def _same(version: str) -> bool:
    return version == _series() or version.startswith(f"{_series()}.")


def _checked(host: Host, words: Sequence[str]) -> str:
    """A script that says which tinamou is there, status and version on one line, and goes on where it is one of ours."""
    tinamou, called = shlex.join(host.command), shlex.join(ssh.attended([*host.command, *words]))
    return (
        f"v=$({tinamou} --version); s=$?; echo $s $v; [ $s = 0 ] || exit {_GONE}; "
        f"case $v in {_series()} | {_series()}.*) exec {called} ;; esac"
    )


def _data(host: Host, done: Result, said: str) -> Any:
    why = done.stderr.decode(errors="replace").strip()[-500:]
    try:
        data = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise HostError(
            f"the tinamou on {host.name} ended with status {done.status}, and no JSON", why=why or str(error)
        ) from error
    if done.status and isinstance(data, dict) and "error" in data:
        raise error_from(data)
    return data


@contextlib.asynccontextmanager
async def stream(host: Host, argv: Sequence[str], *, connect: float = SECONDS) -> AsyncIterator[Pipe]:
    """A command there whose stdin and stdout are held here, for the block; then the line is cut.

    Each stream has a connection of its own, which takes at most ``connect`` seconds. One that cannot be opened, or is lost,
    shows as the end of ``reader``; why is raised when the block is left: as `run`.
    """
    with ssh.client(host, connect=connect) as client:
        async with exec_async.piped(client.argv(argv, "-T"), environment=ssh.environment()) as process:
            assert process.stdin and process.stdout and process.stderr
            tail = bytearray()
            hearing = asyncio.ensure_future(_tail(process.stderr, tail))
            try:
                yield Pipe(process.stdout, process.stdin, tail, process)
                if process.stdout.at_eof():
                    client.check(await process.wait())
            finally:
                hearing.cancel()


async def _tail(reader: asyncio.StreamReader, kept: bytearray) -> None:
    while piece := await reader.read(_PIECE):
        kept += piece
        del kept[:-_PIECE]


@contextlib.asynccontextmanager
async def forward(
    host: Host,
    there: Mapping[Path, str] | None = None,
    back: Mapping[str, Path] | None = None,
    *,
    packed: bool = False,
    timeout: float = SECONDS,
) -> AsyncIterator[None]:
    """Unix sockets through ssh, for the block: who connects to a path here reaches the socket of that path there.

    ``there`` is path here → path there; ``back`` is path there → path here: who connects to it there reaches the socket
    here. With ``packed`` ssh compresses what goes through. All of them stand when the block begins, within ``timeout``
    seconds, and are gone after it, there too when the line is lost. Raises as `run`; SilentHostError with ssh's reason for
    a path that is taken.
    """
    words = [word for here, far in (there or {}).items() for word in ("-L", f"{here}:{far}")]
    words += [word for far, here in (back or {}).items() for word in ("-R", f"{far}:{here}")]
    more = ["-T", *(["-C"] if packed else []), "-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindMask=0177", *words]
    # a forward that cannot be made ends ssh before the command: its first byte says that all stand
    script = f"echo; cat; {shlex.join(['rm', '-f', '--', *(back or {})])}"
    with ssh.client(host, connect=timeout) as client:
        argv = client.argv(["sh", "-c", script], *more)
        async with exec_async.piped(argv, environment=ssh.environment()) as process:
            assert process.stdin and process.stdout
            try:
                if not await _within(client, timeout, process.stdout.read(1)):
                    await process.wait()
                    raise ssh.failure(host, client.said(), "the sockets cannot be carried there")
                yield
                process.stdin.close()
                await _within(client, timeout, process.wait())
            finally:
                for here in there or {}:
                    here.unlink(missing_ok=True)


async def _within(client: ssh.Client, seconds: float, work: Awaitable[T]) -> T:
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError:
        raise ssh.failure(client.host, client.said(), f"no answer within {seconds:g} s") from None
