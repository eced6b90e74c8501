"""Reaching a guest with OpenSSH: the argument vectors, waiting until its server answers, running commands.

Source: ssh(1), ssh_config(5). The user's own configuration is left out (``-F none``), so that the same command does the same
thing everywhere; the host key is remembered per machine, from the first answer on.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tinamou.errors import GuestError, TimeLimitError
from tinamou.late import dataclass
from tinamou.system.exec import find_tool

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent

__all__ = ["SshTarget", "run", "scp_argv", "ssh_argv", "target", "wait_ssh"]

_SSH_PORT = ":0016"
_FIRST_PATIENCE, _LONGEST_PATIENCE = 3.0, 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5


@dataclass(frozen=True)
class SshTarget:
    """Where a guest's ssh server is, and with which key and known-hosts file to go there."""

    user: str
    port: int
    key: str
    known_hosts: str
    host: str = "127.0.0.1"


def target(directory: str, user: str, port: int, host: str = "127.0.0.1") -> SshTarget:
    """The ssh server of the machine whose files are in ``directory``."""
    return SshTarget(user, port, f"{directory}/id_ed25519", f"{directory}/known_hosts", host)


def _options(target: SshTarget) -> list[str]:
    settings = {
        "UserKnownHostsFile": _quoted(target.known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "accept-new",
        "HashKnownHosts": "no",
        "CheckHostIP": "no",
        "IdentitiesOnly": "yes",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "ConnectTimeout": "10",
        "ServerAliveInterval": "15",
        "LogLevel": "ERROR",
    }
    return ["-F", "none", "-i", target.key, *(f"-o{name}={value}" for name, value in settings.items())]


def _quoted(path: str) -> str:
    return '"' + path.replace("%", "%%") + '"'


def ssh_argv(target: SshTarget, command: Sequence[str] = (), *, terminal: bool | None = None) -> list[str]:
    """``ssh`` to the guest: a login shell, or one command given as words.

    ssh joins words with spaces and the guest's shell splits them again, so they are quoted here; ``terminal`` asks for one
    (``-t``), refuses one (``-T``), or leaves it to ssh (None).
    """
    asked = {True: ["-t"], False: ["-T"], None: []}[terminal]
    argv = [_tool("ssh"), *_options(target), *asked, "-p", str(target.port), "-l", target.user, target.host]
    return [*argv, "--", shlex.join(command)] if command else argv


def scp_argv(target: SshTarget, sources: Sequence[str], destination: str, *, into_guest: bool) -> list[str]:
    """``scp -r -p`` between host and guest; ``sources`` and ``destination`` are plain paths on their side."""
    there = f"{target.user}@{target.host}:"
    here_paths, guest_paths = (sources, [destination]) if into_guest else ([destination], sources)
    local = [path if path.startswith(("/", "./")) else f"./{path}" for path in here_paths]
    remote = [there + path for path in guest_paths]
    ends = [*local, *remote] if into_guest else [*remote, *local]
    return [_tool("scp"), *_options(target), "-q", "-r", "-p", "-P", str(target.port), "--", *ends]


def _tool(name: str) -> str:
    found = find_tool(name)
    if found is None:
        raise GuestError(f"The command {name} is missing on this host", fix="install openssh-client")
    return found


async def wait_ssh(
    target: SshTarget, *, agent: Agent | None = None, alive: Callable[[], bool] = lambda: True, timeout: float = 120.0
) -> str:
    """Wait until an ssh server greets, and return its greeting (``SSH-2.0-OpenSSH_9.2p1 …``).

    A forwarded port accepts connections before the guest listens, so only the greeting counts (source: RFC 4253, 4.2). A
    connection made too early may never get one, and a slow guest takes long for the first: the patience doubles each time.
    Give the ``agent`` where there is one: then nothing connects before the guest listens. With the passt of Debian 12 that
    matters: after a connection to a guest whose network was not up, later ones hang.
    Raises GuestError after ``timeout`` seconds, and at once when ``alive()`` says that the machine has ended.
    """
    import asyncio

    pause, patience = _FIRST_PAUSE, _FIRST_PATIENCE
    try:
        async with asyncio.timeout(timeout):
            while agent is not None and alive() and not await _listens(agent):  # noqa: ASYNC110
                await asyncio.sleep(_LONGEST_PAUSE)
            while True:
                try:
                    if greeting := await _greeting(target, patience):
                        return greeting
                except TimeoutError:
                    patience = min(patience * 2, _LONGEST_PATIENCE)
                if not alive():
                    raise GuestError("The machine ended before its ssh server answered")
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE)
    except TimeoutError:
        raise GuestError(
            f"No ssh server answered at {target.host}, port {target.port}, within {timeout:g} s",
            why="the guest has none, has not started it yet, or its network does not work",
            fix="look at the guest: tinamou console NAME, tinamou logs NAME",
        ) from None


async def _listens(agent: Agent) -> bool:
    """Whether something in the guest listens on the port of ssh (source: proc(5), /proc/net/tcp: state 0A is LISTEN)."""
    from tinamou.guest import files

    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = (await files.read(agent, path)).decode(errors="replace").splitlines()[1:]
        except GuestError:
            continue
        if any(row.split()[1].endswith(_SSH_PORT) and row.split()[3] == "0A" for row in rows if len(row.split()) > 3):
            return True
    return False


async def _greeting(target: SshTarget, patience: float) -> str:
    """The greeting, empty where there is none. Raises TimeoutError after ``patience`` seconds without a word."""
    import asyncio
    import contextlib

    async with asyncio.timeout(patience):
        try:
            reader, writer = await asyncio.open_connection(target.host, target.port)
            with contextlib.closing(writer):
                line = await reader.readline()
        except (OSError, ValueError):
            return ""
    return line.decode(errors="replace").strip() if line.startswith(b"SSH-") else ""


async def run(
    target: SshTarget, command: Sequence[str], *, input: bytes | None = None, timeout: float | None = None
) -> tuple[int, bytes, bytes]:
    """Run one command and return its exit status, standard output and standard error; ``timeout`` in seconds.

    Raises GuestError when ssh itself failed (it then exits with 255, as no ordinary command does).
    """
    from tinamou.system.exec_async import communicate

    argv = ssh_argv(target, command, terminal=False)
    try:
        status, out, err = await communicate(argv, input=input, timeout=timeout)
    except TimeoutError:
        raise TimeLimitError(f"The command {shlex.join(command)} did not end within {timeout:g} s", why="over ssh") from None
    if status == 255:
        raise GuestError("ssh could not run the command", why=err.decode(errors="replace").strip(), fix=shlex.join(argv))
    return status, out, err
