"""Whose a machine is whose move was cut short: the other host is asked, and where it is lost for good somebody says so.

The sentence "it is off" is the one thing tinamou cannot check; a cluster that fences can (`data/ocf/tinamou`).
"""

from __future__ import annotations

import time

from tinamou.errors import HostError, StateError
from tinamou.fleet import hosts, remote
from tinamou.fleet.hosts import Host
from tinamou.late import dataclass
from tinamou.machine import arriving
from tinamou.machine.reconcile import end_machine, reconcile
from tinamou.machine.turns import turn
from tinamou.state import machines, moves
from tinamou.state.record import Record, newest
from tinamou.system.loop_thread import in_thread

__all__ = ["Settled", "give_up", "settle"]


@dataclass(frozen=True)
class Settled:
    """Where the machine is now: ``host`` is empty for this one, and it is ``running`` there, or is off."""

    name: str
    host: str
    running: bool
    notes: tuple[str, ...] = ()


async def settle(name: str, *, ask: str = "", other_is_off: bool = False) -> Settled:
    """Decide whose a machine is that is ready here, or stayed here, and whose other host was not heard.

    ``ask`` is what that host is called here, where it calls itself otherwise. With ``other_is_off`` a host that does not
    answer is taken for one that will never run the machine. Raises StateError, HostError; nothing has changed then.
    """
    await in_thread(reconcile)
    async with turn(machines.find(name), "settle") as record:
        if moves.phase(record) == moves.READY:
            return await _arrived(record, ask, other_is_off)
        if moves.doubtful(record):
            return await _stayed(record, ask, other_is_off)
        moves.refuse_elsewhere(record, "settled")
        raise StateError(f"there is nothing to settle of {name}", why="no move of it was cut short here", fix="tinamou ls")


async def give_up(record: Record, host: Host) -> Record:
    """Have the target throw away what it has: the machine is this host's for sure, or has been taken over there.

    Raises HostError for one that does not answer.
    """
    token = moves.token_of(record)
    words = ["receive", "--drop", token, "--created", repr(record.created), "--generation", str(record.generation)]
    owner = str((await remote.call_json(host, words, timeout=host.patience))["owner"])
    if not owner:
        return await in_thread(moves.sure, record, token)
    gone = await in_thread(moves.lost, record, token)
    await in_thread(end_machine, gone)
    return gone


async def _arrived(record: Record, ask: str, other_is_off: bool) -> Settled:
    name, source = record.name, str(record.move["host"])
    said, silent = await _said_by(ask or source, moves.token_of(record))
    if said == "stays":
        await in_thread(arriving.discard, moves.dropped(record, moves.token_of(record)))
        return Settled(name, source, running=True, notes=(f"{source} has it still; what had come here was removed",))
    notes = []
    if said != "left":
        if not other_is_off:
            raise _undecided(record, source, silent)
        notes = [_may_be_lost(record, source)]
    now, event = await arriving.let_run(record)
    if event is None:
        notes.append(f"its QEMU had ended: tinamou start {name}")
    return Settled(name, "", running=now.running, notes=tuple(notes))


async def _said_by(source: str, token: str) -> tuple[str, str]:
    """What the source says of its move, empty where it is not heard, or knows nothing of it; why then."""
    if source not in [one.name for one in hosts.every()]:
        return "", f"no host is known as {source}: tinamou host add {source}, or --ask NAME"
    host = hosts.find(source)
    try:
        said = str((await remote.call_json(host, ["receive", "--whose", token], timeout=host.patience))["whose"])
    except HostError as error:
        return "", f"{error.what}: {error.why}"
    return ("", f"{source} knows of no such move") if said == "unknown" else (said, "")


def _undecided(record: Record, source: str, why: str) -> StateError:
    fix = f"when {source} is off, or was fenced: tinamou settle {record.name} --other-is-off; {_may_be_lost(record, source)}"
    return StateError(f"whose {record.name} is only {source} can say", why=why, fix=fix)


def _may_be_lost(record: Record, source: str) -> str:
    at = record.move.get("at")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if isinstance(at, (int, float)) else "its arrival"
    return f"all that it synced until {when} is here; had {source} let it run on, what it did there since is lost"


async def _stayed(record: Record, ask: str, other_is_off: bool) -> Settled:
    name, target = record.name, str(record.move["host"])
    notes: tuple[str, ...] = ()
    try:
        now = await give_up(record, hosts.find(ask or target))
    except (HostError, StateError) as error:
        if not other_is_off:
            fix = f"when {target} is off for good: tinamou settle {name} --other-is-off"
            raise StateError(f"{target} does not say whether it took {name} over", why=error.what, fix=fix) from error
        now = await in_thread(moves.sure, newest(record), moves.token_of(record))
        notes = (f"{target} was not heard: {name} must not be taken over there",)
    return Settled(name, target if moves.phase(now) else "", running=now.running or bool(moves.phase(now)), notes=notes)
