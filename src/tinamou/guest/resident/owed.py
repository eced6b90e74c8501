"""What a guest's resident was told or asked, and has not answered yet."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Mapping
from typing import Self, TypeVar

from tinamou.errors import GuestError
from tinamou.guest.resident.frames import identity
from tinamou.late import dataclass, field

__all__ = ["FRESH", "Identity", "Owed", "fail", "resolve"]

T = TypeVar("T")

FRESH = 2
"""Records of a guest that stays who it is: the time, and random numbers."""


@dataclass(frozen=True)
class Identity:
    """What makes a fork a machine of its own: see `frames.identity`; entropy and time are always fresh.

    ``ahead`` are the seconds that its clock is ahead of this host's; None leaves its clock alone.
    """

    hostname: str = ""
    macs: Mapping[bytes, bytes] = field(default_factory=dict)
    files: tuple[tuple[str, int, bytes], ...] = ()
    signals: tuple[tuple[str, int], ...] = ()
    ahead: int | None = 0


@dataclass(frozen=True)
class Owed:
    """The answer to identity records: when it came, and what it says. ``after`` lets the guest run.

    ``told`` is the ``time.monotonic()`` of the time that is in the records.
    """

    records: list[bytes]
    after: asyncio.Task[None] | None
    answer: asyncio.Future[tuple[float, bytes]]
    told: float
    ahead: int | None = 0

    @classmethod
    def of(cls, who: Identity, after: asyncio.Task[None] | None) -> Self:
        """What is said to the guest now that is to be that, and is owed from now on."""
        told = time.monotonic()
        records = identity(
            entropy=os.urandom(64),
            time_ns=None if who.ahead is None else time.time_ns() + who.ahead * 1_000_000_000,
            hostname=who.hostname,
            macs=who.macs,
            files=who.files,
            signals=who.signals,
        )
        return cls(records, after, asyncio.get_running_loop().create_future(), told, who.ahead)

    def payload(self, *, borrowed: bool) -> bytes:
        """What is said: the records, which whoever shares the machine's own line, that is ``borrowed``, makes itself."""
        return struct.pack("<q", self.ahead or 0) if borrowed else b"".join(self.records)

    def failed(self, results: bytes) -> str | None:
        """What the guest did not do; None when it did everything. A process that is not there need not be told."""
        if len(results) != len(self.records):
            return f"it answered {len(results)} of {len(self.records)} requests"
        failed = [f"{chr(r[0])}: {os.strerror(code)}" for r, code in zip(self.records, results, strict=True) if code]
        return "; ".join(one for one in failed if not one.startswith("s")) or None


def resolve(answer: asyncio.Future[T], value: T) -> None:
    """Answer a question, once."""
    if not answer.done():
        answer.set_result(value)


def fail(answer: asyncio.Future[T], error: GuestError) -> None:
    """It will not be answered; whoever asked need not be there any more."""
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # whoever waits raises it; nobody may
