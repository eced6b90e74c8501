"""Tickets by which a browser opens a socket to a guest: each for one socket, of one caller and browser, and soon."""

from __future__ import annotations

import hashlib
import secrets
import time

from tinamou.late import dataclass
from tinamou.service.auth import Caller, NotAllowedError

__all__ = ["GOOD_SECONDS", "Tickets"]

GOOD_SECONDS = 30.0
"""How long a ticket waits for its socket."""
_MOST = 256
"""How many wait for each caller; the oldest are forgotten first."""


@dataclass(frozen=True)
class _Given:
    owner: str
    browser: str
    path: str
    until: float


class Tickets:
    """Those of one service that wait for their sockets; a killed service's are gone, as its sockets are."""

    def __init__(self) -> None:
        self._given: dict[str, _Given] = {}

    def give(self, caller: Caller, browser: str, path: str) -> str:
        """A ticket for the socket at that path; ``browser`` is what this browser alone has."""
        now = time.monotonic()
        self._given = {key: one for key, one in self._given.items() if one.until > now}
        mine = [key for key, one in self._given.items() if one.owner == caller.owner]
        for key in mine[: max(len(mine) - _MOST + 1, 0)]:
            del self._given[key]
        text = secrets.token_urlsafe(24)
        self._given[_digest(text)] = _Given(caller.owner, _digest(browser), path, now + GOOD_SECONDS)
        return text

    def take(self, text: str, caller: Caller, browser: str, path: str) -> None:
        """Use a ticket up. Raises NotAllowedError for one that is not for this caller, browser and socket, or not now."""
        given = self._given.pop(_digest(text), None)
        if given is None or given.until <= time.monotonic():
            why = "there is no ticket, or one that was used, or is too old"
        elif (given.owner, given.browser, given.path) != (caller.owner, _digest(browser), path):
            why = "the ticket is for another caller, browser or socket"
        else:
            return
        raise NotAllowedError(f"{caller.name} has no ticket for this socket", why=why, fix=f"POST {path}/ticket gives one")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
