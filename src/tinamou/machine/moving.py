"""What a move to or from another host left here that was cut short: whose the machine is its record says."""

from __future__ import annotations

import contextlib
from typing import Protocol

from tinamou.errors import TinamouError
from tinamou.state import moves
from tinamou.state.record import Record

__all__ = ["settle"]

_ASK_SECONDS = 10.0


class _Over(Protocol):
    def __call__(self, record: Record, *, gone: bool) -> None:
        """End the machine, give back what it had; it is ``gone`` then."""


def settle(record: Record, over: _Over) -> list[str]:
    """Put right what nobody attends any more; one sentence for each thing. The machine's move is under way, or was."""
    where, name, host = moves.phase(record), record.name, record.move.get("host", "another host")
    if where == moves.LEFT:
        if record.running and not moves.attended(record):
            over(record, gone=False)
            return [f"machine {name} has moved to {host}; what was left of it here was ended"]
        return []
    if where == moves.READY or moves.attended(record):
        return []
    if where == moves.ARRIVING:
        over(record, gone=True)
        return [f"machine {name} did not arrive from {host}; what had come of it was removed"]
    with contextlib.suppress(TinamouError, TimeoutError):  # the next command tries again
        if record.running:
            _run_on(record)
        doubt = f", and may be ready on {host}: tinamou settle {name}" if record.move.get("sent") else ""
        moves.stay(record, moves.token_of(record))
        return [f"the move of machine {name} to {host} was cut short; it stays here{doubt}"]
    return []


def _run_on(record: Record) -> None:
    import asyncio

    from tinamou.control import connect_qmp
    from tinamou.snapshots.outgoing import run_on
    from tinamou.system.loop_thread import wait_for

    async def ask() -> None:
        async with asyncio.timeout(_ASK_SECONDS):
            async with await connect_qmp(record.directory, alive=lambda: record.running) as session:
                await run_on(session)

    wait_for(ask())
