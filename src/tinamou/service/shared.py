"""What all requests of one service share: its operations, its events, what is seen of the machines, its numbers."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinamou.late import dataclass
from tinamou.service import journal
from tinamou.service.auth import Caller, by_token
from tinamou.service.feed import Feed
from tinamou.service.findings import Findings
from tinamou.service.lookout import Lookout
from tinamou.service.metrics import Metrics
from tinamou.service.problems import MissingError
from tinamou.service.tickets import Tickets
from tinamou.service.work import Work
from tinamou.spec import NAME
from tinamou.state import machines
from tinamou.state.record import Record, read
from tinamou.system.loop_thread import dropped
from tinamou.system.paths import this_host

if TYPE_CHECKING:
    from tinamou.service.oidc import Issuer

__all__ = ["Service", "Settings", "existing"]

_DRAIN_SECONDS = 20.0
"""How long what is under way may take when the service is asked to end."""


@dataclass(frozen=True)
class Settings:
    """How the service is reached: ``names`` are hosts by which it is, ``secure`` whether browsers reach it by TLS.

    ``issuer`` says who holds tokens that are not of the service's own.
    """

    names: tuple[str, ...] = ()
    secure: bool = False
    issuer: Issuer | None = None


class Service:
    """The service of the machines of the active host."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings: Settings = settings or Settings()
        self.state: Path = this_host().state
        state = self.state
        self.feed: Feed = Feed(state)
        self.lookout: Lookout = Lookout(self.feed)
        self.findings: Findings = Findings()
        self.metrics: Metrics = Metrics(self.lookout, self.findings)
        self.work: Work = Work(state, self._operation)
        self.tickets: Tickets = Tickets()

    def known(self, text: str) -> Caller | None:
        """Who holds this token: one of the service's own, or of whom it believes."""
        own, issuer = by_token(text), self.settings.issuer
        return own or (issuer.caller(text) if issuer is not None and text else None)

    def _operation(self, shown: dict[str, Any]) -> None:
        """An operation has begun, got on, or ended. Its result and the logs beside its error are asked for by its id."""
        if shown["state"] != "running":
            self.lookout.changed(shown["about"])
            self.metrics.ended(shown)
            journal.ended(shown)
            shown = {key: value for key, value in shown.items() if key != "result"}
            if shown["error"]:
                shown["error"] = {key: value for key, value in shown["error"].items() if key != "evidence"}
        gets_on = shown["state"] == "running" and shown["progress"] != {"text": "", "fraction": None}
        (self.feed.tell_alone if gets_on else self.feed.tell)("operation", shown["about"], shown)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """It does its work until the block ends, and then ends what is under way. Raises StateError where another does."""
        with self.work.held():
            shutil.rmtree(self.state / "service/spool", ignore_errors=True)  # what a killed service left of transfers
            self.feed.open()
            looking = asyncio.ensure_future(self.lookout.run())
            try:
                yield
            finally:
                await self.work.drained(_DRAIN_SECONDS)
                await dropped(looking)
                await self.findings.ended()


def existing(name: str) -> Record:
    """The machine of that name. Raises MissingError where there is none, StateError where its record is damaged."""
    record = read(machines.machines_dir() / name) if re.fullmatch(NAME, name) else None
    if record is None:
        raise MissingError(f"there is no machine named {name[:60]!a}", fix="GET /v1/machines lists those there are")
    return record
