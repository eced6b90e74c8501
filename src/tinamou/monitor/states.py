"""What machines are doing, each asked for two seconds at most, all at once; what cannot be found out is ``unknown``."""

from __future__ import annotations

from collections.abc import Iterable

from tinamou.errors import TinamouError
from tinamou.late import dataclass
from tinamou.snapshots.orphans import is_suspended
from tinamou.state.allowed import of_others
from tinamou.state.moves import ARRIVING, LEFT, READY, phase
from tinamou.state.record import Record

__all__ = ["GRACE_SECONDS", "LOOK_SECONDS", "UNKNOWN", "State", "at_once", "at_rest", "reason", "state_of", "states_of"]

LOOK_SECONDS = 2.0
"""How long the QEMU of one machine is waited for where many are looked at."""

GRACE_SECONDS = 30.0
"""How long a guest may take to shut down before its power is cut, where nobody says otherwise."""

UNKNOWN = "unknown"

_MOVES = {LEFT: "moved", ARRIVING: "arriving", READY: "arriving"}


@dataclass(frozen=True)
class State:
    """``running``, ``paused``, … as QEMU says; without QEMU ``suspended`` or ``stopped``; ``unknown``, and ``why``."""

    state: str
    why: str = ""


def at_once(records: Iterable[Record]) -> list[State] | None:
    """The states of machines none of which runs, so that nobody has to be asked; None where one does."""
    there = list(records)
    return None if any(record.running for record in there) else [State(at_rest(record)) for record in there]


async def states_of(records: Iterable[Record]) -> list[State]:
    """The states of machines, in their order."""
    import asyncio

    return list(await asyncio.gather(*(state_of(record) for record in records)))


async def state_of(record: Record) -> State:
    """What a machine is doing."""
    import asyncio

    if not record.running:
        return State(at_rest(record))
    if of_others(record):  # its QEMU answers root alone
        return State("running")
    from tinamou.control import connect_qmp
    from tinamou.control.commands import status

    try:
        async with asyncio.timeout(LOOK_SECONDS):
            async with await connect_qmp(record.directory, alive=lambda: record.running) as session:
                return State((await status(session)).state)
    except Exception as error:
        return State(UNKNOWN, reason(error)) if record.running else State(at_rest(record))


def reason(error: BaseException) -> str:
    """Why a machine could not be looked at, in one line: whatever its QEMU did, the others are still shown."""
    if isinstance(error, TimeoutError):
        return f"its QEMU does not answer within {LOOK_SECONDS:g} s"
    if isinstance(error, TinamouError):
        return f"{error.what}{': ' + error.why if error.why else ''}"
    return f"{type(error).__name__}: {error}"


def at_rest(record: Record) -> str:
    """``suspended`` or ``stopped``, ``moved`` or ``arriving`` for another host: what a machine is that does not run."""
    if (where := phase(record)) in _MOVES:
        return _MOVES[where]
    return "suspended" if is_suspended(record) else "stopped"
