"""Reaching a guest with OpenSSH: the argument vectors of ssh and scp.

Source: ssh(1), ssh_config(5). The user's own configuration is left out (``-F none``), so that the same command does the same
thing everywhere; the host key is remembered per machine, from the first answer on.
"""

from __future__ import annotations

import shlex
import socket
import time
from collections.abc import Callable, Sequence

from tinamou.errors import GuestError
from tinamou.late import dataclass
from tinamou.system.exec import find_tool

__all__ = ["SshTarget", "scp_argv", "ssh_argv", "target", "until_served"]

_TRY_SECONDS, _PAUSE_SECONDS = 10.0, 0.2


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


def until_served(target: SshTarget, seconds: float, alive: Callable[[], bool], waits: Callable[[], None]) -> None:
    """Return when the guest's ssh server greets; a guest that boots resets connections, or lets them wait, until then.

    ``waits`` is called once when it is not there yet. Raises GuestError after ``seconds``, or when the machine is gone.
    """
    until, told, reason = time.monotonic() + seconds, False, ""
    while alive():
        left = until - time.monotonic()
        try:
            with socket.create_connection((target.host, target.port), timeout=max(0.1, min(left, _TRY_SECONDS))) as line:
                if line.recv(4) == b"SSH-":
                    return
                reason = "the connection was closed at once"
        except OSError as error:
            reason = error.strerror or str(error)
        if left <= 0:
            fix = "look at its boot: tinamou logs NAME; tinamou exec NAME -- COMMAND needs no ssh server"
            raise GuestError(f"No ssh server answered in the guest within {seconds:g} s", why=reason, fix=fix)
        if not told:
            waits()
            told = True
        time.sleep(_PAUSE_SECONDS)
    raise GuestError("The machine ended while its ssh server was waited for", fix="tinamou logs NAME tells why")


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
