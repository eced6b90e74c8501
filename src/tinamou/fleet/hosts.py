"""The hosts this one knows: where each is, the key it must show, and the command that is tinamou there.

``hosts.json`` in the state directory keeps them. A host is known by one public key, which somebody confirmed: another key is
another host (docs/decisions/0110-other-hosts.md).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Any

from tinamou import late
from tinamou.errors import Problem, SpecError, StateError
from tinamou.late import dataclass
from tinamou.state.entries import Register

__all__ = ["Host", "add", "check_place", "every", "find", "fingerprint", "is_key", "remove"]

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}|[0-9a-fA-F:]{2,39}(%[A-Za-z0-9_.-]{1,15})?")
"""A name or number of IPv4, or a number of IPv6: nothing that a command takes for an option."""
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?")
_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]{40,2000}={0,3}")


@dataclass(frozen=True)
class Host:
    """A host that ssh reaches, as ``user`` (who runs this when empty) at ``address`` and ``port``.

    ``key`` is its public key, "ssh-ed25519 AAAA…"; ``command`` the words that call tinamou there; ``identity`` the file of
    the private key to log in with, empty for those of ssh's own habit (the agent's, ~/.ssh/id_*); ``patience`` the
    seconds it may take to answer a question.
    """

    name: str
    address: str
    key: str
    user: str = ""
    port: int = 22
    command: tuple[str, ...] = ("tinamou",)
    identity: str = ""
    patience: float = 10.0

    @property
    def fingerprint(self) -> str:
        """Its key as people compare it: ``SHA256:…``, as ssh-keygen -l prints it."""
        return fingerprint(self.key)

    def plain(self) -> dict[str, Any]:
        """As JSON shows it."""
        return {**late.asdict(self), "command": list(self.command), "fingerprint": self.fingerprint}


def fingerprint(key: str) -> str:
    """The fingerprint of a public key ("ssh-ed25519 AAAA…"): base64 of SHA-256, without padding. Raises ValueError."""
    try:
        blob = base64.b64decode(key.split()[1], validate=True)
    except (IndexError, binascii.Error) as error:
        raise ValueError(f"no public key: {key!r}") from error
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def is_key(text: str) -> bool:
    """Whether it is a public key as `Host.key` has it."""
    return bool(_KEY.fullmatch(text))


def check_place(address: str, port: int) -> None:
    """Raise SpecError for what is no address, or no port."""
    if problems := _place_problems(address, port):
        raise SpecError("this is no host", problems=problems)


def _place_problems(address: str, port: int) -> list[Problem]:
    found = []
    if not _ADDRESS.fullmatch(address):
        found.append(Problem("address", address, "neither a name nor a number of a host", "for example 192.0.2.7"))
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        found.append(Problem("port", port, "not a port", "1 to 65535"))
    return found


def _problems(host: Host) -> list[Problem]:
    found = _place_problems(host.address, host.port)
    if not _NAME.fullmatch(host.name):
        found.append(Problem("name", host.name, "not a plain name", "small letters, digits, and . - between them"))
    if host.user and not _USER.fullmatch(host.user):
        found.append(Problem("user", host.user, "not a user's name"))
    if not is_key(host.key):
        found.append(Problem("key", host.key, "not a public key", "for example ssh-ed25519 AAAA…"))
    if not host.command or not all(isinstance(word, str) and word.isprintable() and word for word in host.command):
        found.append(Problem("command", list(host.command), "no command", "for example tinamou"))
    if host.identity and (not host.identity.startswith("/") or not host.identity.isprintable()):
        found.append(Problem("identity", host.identity, "not the whole path of a file"))
    if not isinstance(host.patience, int | float) or not 0 < host.patience < 3600:
        found.append(Problem("timeout", host.patience, "no time to wait", "seconds, for example 10"))
    return found


def add(host: Host) -> None:
    """Remember a host. Raises SpecError, StateError for a name that is taken."""
    if problems := _problems(host):
        raise SpecError("this is no host", problems=problems)

    def put(known: dict[str, Host]) -> None:
        if host.name in known:
            fix = f"tinamou host rm {host.name} forgets it"
            raise StateError(f"there is a host {host.name} already, at {known[host.name].address}", fix=fix)
        known[host.name] = host

    _register.update(put)


def remove(name: str) -> None:
    """Forget a host. Raises StateError where there is none of that name."""

    def drop(known: dict[str, Host]) -> None:
        if known.pop(name, None) is None:
            raise _missing(name)

    _register.update(drop)


def every() -> list[Host]:
    """All hosts, by name. Raises StateError for a file that is not to be believed."""
    return [host for _, host in sorted(_register.read().items())]


def find(name: str) -> Host:
    """The host of that name. Raises StateError where there is none."""
    if (host := _register.read().get(name)) is None:
        raise _missing(name)
    return host


def _missing(name: str) -> StateError:
    return StateError(f"there is no host {name}", fix="tinamou host ls shows all, tinamou host add NAME ADDRESS adds one")


def _made(name: str, fields: dict[str, Any]) -> Host:
    host = Host(name=name, **{**fields, "command": tuple(fields["command"])})
    if wrong := list(_problems(host)):
        raise ValueError(str(wrong[0]))
    return host


_register = Register("hosts", _made)
