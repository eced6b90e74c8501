"""Tokens by which programs are known to the service: what each may do with which machines, and until when.

``tokens.json`` in the state directory keeps the SHA-256 of each secret, which is 256 random bits, and never the secret.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from collections.abc import Sequence
from typing import Any

from tinamou import late
from tinamou.errors import Problem, SpecError, StateError
from tinamou.late import dataclass
from tinamou.state.entries import Register

__all__ = ["VERBS", "Token", "create", "every", "holder", "revoke"]

VERBS = {
    "ls": "see which machines there are",
    "show": "see what is known of a machine: its description, plan, disks, cards",
    "stats": "see what machines use, and the metrics",
    "logs": "read what a guest said on its console, and QEMU",
    "events": "hear what happens",
    "doctor": "see what is wrong with the host",
    "plan": "see what would be made of a description",
    "create": "make machines",
    "host": "name files, folders and devices of the host in a description: as much as the service's user can do",
    "start": "start, restart",
    "stop": "stop, kill, reset",
    "pause": "pause, suspend, resume",
    "snapshot": "take, remove and go back to snapshots",
    "fork": "make running copies",
    "rm": "remove machines and their disks",
    "net": "change and diagnose the network of machines",
    "exec": "run commands in a guest",
    "console": "hold a guest's console",
    "screen": "see a guest's screen, and use its keyboard and mouse",
    "cp": "read and write files in a guest",
}
"""What a token can be for, in words."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PREFIX = "tnm_"
"""Begins each token, so that it is known for one wherever it turns up."""


@dataclass(frozen=True)
class Token:
    """A token without its secret. ``created`` and ``expires`` are seconds since 1970, ``expires`` 0 for never.

    ``verbs`` are keys of `VERBS`, or ``*`` for all; ``machines`` patterns of names, as a shell has them.
    """

    name: str
    verbs: list[str]
    machines: list[str]
    created: float
    expires: float
    digest: str

    @property
    def identity(self) -> str:
        """Whose things are: another token of the same name, made when this one was over, is somebody else."""
        return f"{self.name}#{self.digest[:12]}"

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return bool(self.expires) and time.time() >= self.expires

    def plain(self) -> dict[str, Any]:
        """What may be shown of it."""
        return {key: value for key, value in late.asdict(self).items() if key != "digest"} | {"expired": self.expired}


def create(name: str, *, verbs: Sequence[str], machines: Sequence[str] = ("*",), seconds: float = 0.0) -> str:
    """Make a token and return its secret, which is kept nowhere. ``seconds`` is how long it holds, 0 for ever.

    Raises SpecError, StateError for a name that is taken.
    """
    problems = [Problem("verb", verb, "no such verb", f"one of {', '.join(VERBS)}, *") for verb in verbs if not _known(verb)]
    if not _NAME.fullmatch(name):
        problems.append(Problem("name", name, "not a plain name", "letters, digits, and . _ - between them"))
    if not verbs:
        problems.append(Problem("verb", None, "it would be for nothing", "name what it is for"))
    if seconds < 0:
        problems.append(Problem("expires", seconds, "it would be over already", "name a time to come"))
    if problems:
        raise SpecError("this token cannot be made", problems=problems)
    secret = _PREFIX + os.urandom(32).hex()
    now = time.time()
    made = Token(name, sorted(set(verbs)), list(machines), now, now + seconds if seconds else 0.0, _digest(secret))

    def add(known: dict[str, Token]) -> None:
        if name in known and not known[name].expired:
            raise StateError(f"there is a token {name} already", fix=f"tinamou token revoke {name}, or choose another name")
        known[name] = made

    _register.update(add)
    return secret


def revoke(name: str) -> None:
    """From now on the token of that name is for nothing. Raises StateError where there is none."""

    def drop(known: dict[str, Token]) -> None:
        if known.pop(name, None) is None:
            raise StateError(f"there is no token {name}", fix="tinamou token ls shows all")

    _register.update(drop)


def every() -> list[Token]:
    """All tokens, by name. Raises StateError for a file that is not to be believed."""
    return [token for _, token in sorted(_register.read().items())]


def holder(secret: str) -> Token | None:
    """The token with this secret, while it holds."""
    if not secret.startswith(_PREFIX):
        return None
    digest = _digest(secret)
    return next(
        (one for one in _register.read().values() if hmac.compare_digest(one.digest, digest) and not one.expired), None
    )


def _known(verb: str) -> bool:
    return verb == "*" or verb in VERBS


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


_register = Register("tokens", lambda name, fields: Token(name=name, **fields))
