"""How OpenSSH's client is called for a host: its options, what it says, and which error that is.

Source: ssh(1), ssh_config(5). No configuration of the user's or the system's is read (``-F none``): what that says of trust,
of forwarding or of commands has no say here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Sequence

from tinamou.errors import HostError, LaunchError
from tinamou.fleet.hosts import Host
from tinamou.late import dataclass
from tinamou.system.exec import clean_environment, find_tool

__all__ = [
    "LOST",
    "Client",
    "RefusedLoginError",
    "SilentHostError",
    "WrongKeyError",
    "attended",
    "client",
    "environment",
    "failure",
    "not_confirmed",
    "there",
]

LOST = 255
"""The status of ssh(1) itself when it could not do its work; a command's own may be the same."""

_ALIVE_SECONDS, _ALIVE_COUNT = 5, 3
"""A line on which nothing comes back for their product is over."""
_MOST = 1 << 16
_STATUS = "debug1: Exit status "
"""Before the number a command ended with, once that came: -1 when none did (source: OpenSSH, clientloop.c)."""


class SilentHostError(HostError):
    """The host is not reached, or did not answer within its time."""


class WrongKeyError(HostError):
    """What answers shows another key than that of the host: it is another host, or somebody between."""


class RefusedLoginError(HostError):
    """The host does not let this user in."""


def not_confirmed(host: Host, why: str) -> WrongKeyError:
    """The error for what answers in the host's place with another key."""
    fix = f"ask whoever runs it; if its key was renewed: tinamou host rm {host.name}, then tinamou host add"
    return WrongKeyError(
        f"what answers at {host.address} is not {host.name}: {host.fingerprint} was expected", why=why, fix=fix
    )


@dataclass(frozen=True)
class Client:
    """An ssh for one host, for a block: ``options`` come before the command, ``log`` is where ssh itself speaks."""

    host: Host
    options: tuple[str, ...]
    log: int

    def argv(self, command: Sequence[str], *more: str) -> list[str]:
        """The words that run a command there; ``more`` are further options."""
        words = [*self.options, *more, "--", self.host.address]
        return [*words, there(command)] if command else words

    def said(self) -> str:
        """What ssh itself said so far, and not the command there: the end of it."""
        begin = max(os.fstat(self.log).st_size - _MOST, 0)
        return os.pread(self.log, _MOST, begin).decode(errors="replace").replace("\r", "")

    @property
    def ended_by(self) -> int:
        """The number of the signal that ended ssh itself, which it heeds and then says; 0 for none."""
        found = re.search(r"^Killed by signal (\d+)", self.said(), re.M)
        return int(found[1]) if found else 0

    def check(self, status: int) -> None:
        """Raise the error for a line that was not opened, or was lost, by the status that ssh ended with."""
        if status < 0 or (status == LOST and f"{_STATUS}{LOST}\n" not in self.said()):
            raise failure(self.host, self.said(), "the line was lost")


def there(command: Sequence[str]) -> str:
    """A command as the login shell there reads it, whichever shell that is."""
    return shlex.join(["exec", *command])


def attended(command: Sequence[str]) -> list[str]:
    """A call of tinamou there, without a terminal, that ends when the line does: `tinamou.cli.loop` sees to it."""
    return ["env", "TINAMOU_ATTENDED=1", *command]


def environment() -> dict[str, str]:
    """What ssh is given of this process's environment: enough to find the user's agent."""
    agent = os.environ.get("SSH_AUTH_SOCK")
    return clean_environment({"SSH_AUTH_SOCK": agent} if agent else None)


@contextlib.contextmanager
def client(host: Host, *, connect: float) -> Iterator[Client]:
    """An ssh that believes in the host's one key alone; ``connect`` is how many seconds it may take to be let in.

    Raises LaunchError where there is no ssh.
    """
    if (ssh := find_tool("ssh")) is None:
        raise LaunchError("there is no ssh here", fix="install openssh-client")
    known, log = (os.memfd_create(name, os.MFD_CLOEXEC) for name in ("known_hosts", "log"))
    try:
        os.write(known, f"{host.name} {host.key}\n".encode())
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "HostKeyAlias": host.name,
            "HostKeyAlgorithms": _algorithms(host.key),
            "UserKnownHostsFile": _path(known),
            "GlobalKnownHostsFile": "none",
            "UpdateHostKeys": "no",
            "NoHostAuthenticationForLocalhost": "no",
            "CheckHostIP": "no",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "PermitLocalCommand": "no",
            "ConnectTimeout": str(max(1, int(connect))),
            "ServerAliveInterval": str(_ALIVE_SECONDS),
            "ServerAliveCountMax": str(_ALIVE_COUNT),
            "LogLevel": "DEBUG1",
        }
        words = [ssh, "-F", "none", "-E", _path(log), "-p", str(host.port)]
        words += ["-l", host.user] if host.user else []
        words += ["-i", host.identity, "-o", "IdentitiesOnly=yes"] if host.identity else []
        words += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        yield Client(host, tuple(words), log)
    finally:
        os.close(known)
        os.close(log)


def _path(descriptor: int) -> str:
    """An open file as ssh finds it, which keeps no descriptor it is started with."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def _algorithms(key: str) -> str:
    kind = key.partition(" ")[0]
    return "rsa-sha2-512,rsa-sha2-256" if kind == "ssh-rsa" else kind


_IDLE = ("debug", "OpenSSH_", "Authenticated to", "Transferred:", "Bytes per second:", "@")
"""How lines begin that ssh writes whatever happens."""
_KEYS = ("Host key verification failed", "IDENTIFICATION HAS CHANGED", "no matching host key type")


def failure(host: Host, said: str, why: str = "") -> HostError:
    """The error for what ssh said of a host, when it could not do its work; ``why`` where it says nothing."""
    lines = [line.strip() for line in said.splitlines() if not line.startswith(_IDLE)]
    last = next((line for line in reversed(lines) if line), why)
    if any(text in said for text in _KEYS):
        return not_confirmed(host, last)
    if "Permission denied" in said:
        user = host.user or "this user"
        fix = f"put your public key into ~/.ssh/authorized_keys there, or: tinamou host add {host.name} … --identity FILE"
        return RefusedLoginError(f"{host.name} does not let {user} in", why=last, fix=fix)
    fix = f"tinamou host check {host.name} says what answers there"
    return SilentHostError(f"{host.name} ({host.address}, port {host.port}) does not answer", why=last, fix=fix)
