"""Reading what the first boot made of a seed: whether cloud-init has finished in a guest, and what it complains about."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tinamou.errors import GuestError
from tinamou.late import dataclass

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent

__all__ = ["SeedResult", "seed_result"]


@dataclass(frozen=True)
class SeedResult:
    """How cloud-init ended: ``status`` is done, error, disabled, not run or absent; ``errors`` are its own words."""

    status: str
    errors: tuple[str, ...]


async def seed_result(agent: Agent, timeout: float = 300.0) -> SeedResult:
    """Wait until cloud-init has finished in the guest, at most ``timeout`` seconds. Raises GuestError."""
    try:
        done = await agent.run(["cloud-init", "status", "--wait", "--format", "json"], timeout=timeout)
    except GuestError as error:
        if "could not start" in error.what:
            return SeedResult("absent", ())
        raise
    try:
        answer = json.loads(done.stdout[done.stdout.index(b"{") :])
        return SeedResult(str(answer["status"]), tuple(str(error) for error in answer.get("errors", ())))
    except (ValueError, KeyError, TypeError):
        return SeedResult("error" if done.status else "done", (done.text,) if done.status else ())
