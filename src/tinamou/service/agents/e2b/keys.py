"""Who may do what: API keys are the service's tokens, and what happens inside a sandbox is judged by who made it."""

from __future__ import annotations

from tinamou import late
from tinamou.service.agents.e2b.entries import Entry
from tinamou.service.agents.e2b.problems import RefusedError
from tinamou.service.auth import Caller, by_token, of_token
from tinamou.state import tokens

__all__ = ["caller_of", "need_of_owner"]

_KEY, _TOKEN = "e2b_", "tnm_"
"""How a token begins where it is an API key of E2B's older clients, and everywhere else."""


def caller_of(key: str) -> Caller:
    """Who has this API key, by the name to whom sandboxes belong. Raises RefusedError for a key of nobody."""
    caller = by_token(f"{_TOKEN}{key.removeprefix(_KEY)}" if key.startswith(_KEY) else key) if key else None
    if caller is None:
        raise RefusedError(401, "the API key is unknown, revoked or too old: make one with tinamou token create")
    return late.replace(caller, name=caller.owner)


def need_of_owner(entry: Entry, verb: str) -> None:
    """Whoever made a sandbox may still do this with it (patterns are of ids). Raises RefusedError, NotAllowedError."""
    maker = next(
        (one for token in tokens.every() if (one := of_token(token)).owner == entry.owner and not token.expired), None
    )
    if maker is None:
        name = entry.owner.removeprefix("token:").partition("#")[0]
        raise RefusedError(401, f"the token {name} that made the sandbox was revoked, or is too old")
    maker.need(verb, entry.id)
