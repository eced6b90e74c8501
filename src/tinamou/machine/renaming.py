"""A machine's name changed, with everything in the state directory that is known by it; its guest goes on as who it was."""

from __future__ import annotations

from tinamou.errors import StateError
from tinamou.late import dataclass
from tinamou.machine import known_by as known
from tinamou.machine.reconcile import give_back
from tinamou.machine.turns import turn
from tinamou.prepare.journal import Journal
from tinamou.snapshots.orphans import is_suspended
from tinamou.spec import load_spec
from tinamou.state import machines
from tinamou.state.record import Record, newest
from tinamou.system.loop_thread import in_thread

__all__ = ["Renamed", "refuse_awake", "rename"]


@dataclass(frozen=True)
class Renamed:
    """A machine under its new name, and what still names it by the old one, which every command tries again."""

    record: Record
    notes: tuple[str, ...] = ()


async def rename(name: str, new: str) -> Renamed:
    """Give a machine that is off another name.

    Its guest keeps host name, hardware addresses and instance id, which are those of its first name. Checkpoints that were
    taken of it stay those of the old name. Raises SpecError, StateError; it has its old name then.
    """
    load_spec({"name": new}, source="the new name")
    async with turn(machines.find(name), "rename") as record:
        refuse_awake(record, "renamed")
        return await in_thread(_renamed, record, new)


def refuse_awake(record: Record, done: str) -> None:
    """Raises StateError for a machine that cannot be ``done`` anything to as a thing that lies still."""
    if is_suspended(record):
        why = "its saved state names its folder and its hardware"
        raise StateError(f"{record.name} is suspended and cannot be {done}", why=why, fix=f"tinamou resume {record.name}")
    if record.running or record.owned:
        why = "its QEMU, its sockets, its control group and its interfaces bear its name"
        fix = f"tinamou stop {record.name}, then do it again"
        raise StateError(f"{record.name} cannot be {done} while it runs", why=why, fix=fix)
    if record.ephemeral:
        raise StateError(f"{record.name} is thrown away when it ends, and cannot be {done}", fix="start one that stays")


def _renamed(record: Record, new: str) -> Renamed:
    if record.name == new:
        raise StateError(f"{new} is its name already")
    with machines.held(record.path) as there:
        if not there:
            raise StateError(f"machine {record.name} is gone", why="another command removed it", fix="tinamou ls")
        record = newest(record)
        refuse_awake(record, "renamed")
        if Journal(record.path).open_entries() and (failed := give_back(record)):
            why = f"not everything it had of the host could be given back: {'; '.join(failed)}"
            raise StateError(f"{record.name} cannot be renamed", why=why, fix="tinamou host repair says more")
        with known.moving(record.path):
            place = machines.move(record.path, new)
        return Renamed(machines.find(new), tuple(known.settle(place)))
