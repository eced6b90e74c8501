"""Who calls, and what they may do: by the kernel's word on a unix socket, by a token anywhere else."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinamou.errors import StateError
from tinamou.late import dataclass
from tinamou.state import machines, tokens
from tinamou.state.allowed import VERBS as ALLOWED_VERBS
from tinamou.state.allowed import Allowed, allowed

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = ["Caller", "NotAllowedError", "by_peer", "by_token", "caller_of", "of_token"]


class NotAllowedError(StateError):
    """Somebody who is known may not do this; the service answers 403."""


@dataclass(frozen=True)
class Caller:
    """Somebody known: ``name`` is ``user:alice`` or ``token:ci``; ``verbs`` what they may do, ``machines`` with which.

    ``verbs`` are those of `tinamou.state.tokens.VERBS` or ``*``, ``machines`` patterns of names as a shell has them. ``uid``
    and ``gids`` are the kernel's word of who is at the other end of a unix socket; one who is not the owner may do with a
    machine what ``tinamou allow`` gave them (``guest``). ``identity`` is to whom things belong, the name where empty: names
    of tokens are used again.
    """

    name: str
    verbs: frozenset[str] = frozenset({"*"})
    machines: tuple[str, ...] = ("*",)
    uid: int | None = None
    gids: frozenset[int] = frozenset()
    guest: bool = False
    identity: str = ""

    @property
    def owner(self) -> str:
        """To whom belongs what they begin and make."""
        return self.identity or self.name

    def may(self, verb: str, machine: str | None = None) -> bool:
        """Whether they may do this, with this machine where it is about one."""
        if self.guest:
            return verb in ALLOWED_VERBS and machine is not None and self._is_let_in(machine)
        named = machine is None or any(fnmatchcase(machine, pattern) for pattern in self.machines)
        return named and ("*" in self.verbs or verb in self.verbs)

    def need(self, verb: str, machine: str | None = None) -> None:
        """Raises NotAllowedError where they may not."""
        if self.may(verb, machine):
            return
        what = f"{self.name} may not {verb}" + (f" {machine}" if machine is not None else "")
        if self.guest:
            why, fix = "this service is another user's", "ask them for: tinamou allow"
        else:
            scope = f"{', '.join(sorted(self.verbs)) or 'nothing'} with {', '.join(self.machines) or 'no machine'}"
            why, fix = f"its token is for {scope}", "make another one: tinamou token create"
        raise NotAllowedError(what, why=why, fix=fix)

    def sees(self, names: Iterable[str]) -> list[str]:
        """Those of the machines' names that they may be told of."""
        if not self.guest and "*" in self.machines:  # there may be thousands
            return [*names] if self.verbs & {"*", "ls", "show"} else []
        return [name for name in names if self.may("show", name) or self.may("ls", name)]

    def _is_let_in(self, machine: str) -> bool:
        if not machine or "/" in machine or machine in (".", ".."):
            return False
        try:
            let: Allowed = allowed(Path(machines.machines_dir() / machine))
        except StateError:
            return False
        return self.uid in let.users or bool(self.gids & let.groups)


def by_peer(uid: int) -> Caller | None:
    """Who a user at the other end of a unix socket is, None for nobody who may do anything.

    The service's user and root may do all; where that is root, others what root allowed them.
    """
    own = uid in (os.geteuid(), 0)
    try:
        user = pwd.getpwuid(uid)
        name = user.pw_name
        groups = frozenset() if own else frozenset(os.getgrouplist(name, user.pw_gid))  # of who is let in by them alone
    except KeyError:
        name, groups = str(uid), frozenset()
    if own:
        return Caller(f"user:{name}", uid=uid)
    return Caller(f"user:{name}", frozenset(), (), uid, groups, guest=True) if os.geteuid() == 0 else None


def by_token(text: str) -> Caller | None:
    """Who holds this token; None for one that is unknown, revoked or too old."""
    found = tokens.holder(text)
    return of_token(found) if found else None


def of_token(token: tokens.Token) -> Caller:
    """Whoever holds that token."""
    name, identity = f"token:{token.name}", f"token:{token.identity}"
    return Caller(name, frozenset(token.verbs), tuple(token.machines), identity=identity)


def caller_of(scope: Scope | Any) -> Caller:
    """Who made this request, which the door (`tinamou.service.door`) has found out before anything else sees it."""
    caller: Caller = scope["state"]["caller"]
    return caller
