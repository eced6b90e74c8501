"""What a guest's resident was told or asked, and has not answered yet."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from tinamou.errors import GuestError
from tinamou.late import dataclass

if TYPE_CHECKING:
    import asyncio

__all__ = ["Owed", "fail", "resolve"]

T = TypeVar("T")


@dataclass(frozen=True)
class Owed:
    """The answer to identity records; ``after`` lets the guest run."""

    records: list[bytes]
    after: asyncio.Task[None] | None
    answer: asyncio.Future[bytes]

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
