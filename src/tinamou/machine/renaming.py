"""A machine's name changed, with everything in the state directory that is known by it; its guest goes on as who it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.machine import autostart
from tinamou.machine.reconcile import give_back
from tinamou.machine.schedules import rename_schedules
from tinamou.machine.turns import turn
from tinamou.prepare.journal import Journal
from tinamou.snapshots.orphans import is_suspended
from tinamou.spec import load_spec
from tinamou.state import machines, networks, uids
from tinamou.state.record import Record, newest, update, written_anew
from tinamou.system.loop_thread import in_thread
from tinamou.system.replaced import replace_text

__all__ = ["refuse_awake", "rename", "with_paths"]


async def rename(name: str, new: str) -> Record:
    """Give a machine that is off another name; the record as it is then.

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


def _renamed(record: Record, new: str) -> Record:
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
        place = machines.move(record.path, new)
    _known_by(record, place)
    return machines.find(new)


def _known_by(record: Record, place: Path) -> None:
    """All that names the machine names it so from now on; done again, it changes nothing."""
    written_anew(place)
    if record.uid is not None:
        uids.moved(record.path, place)
    networks.rename_machine(record.name, place.name)
    for name in (files.PLAN, files.IMAGE):
        with_paths(place / name, f"{record.directory}/", f"{place}/")
    rename_schedules(record.name, place.name)
    autostart.renamed(record.name, machines.find(place.name))
    for other in machines.machines():
        if other.base == record.name:
            update(other.path, lambda found: late.replace(found, base=place.name))


def with_paths(file: Path, old: str, new: str) -> None:
    """Have a JSON file name what is below one folder below another; one that is not there is left so. Raises OSError."""
    if file.exists():
        replace_text(file, json.dumps(_moved(json.loads(file.read_text()), old, new)))


def _moved(value: Any, old: str, new: str) -> Any:
    """Plain data with the paths below one folder below another."""
    if isinstance(value, dict):
        return {key: _moved(inner, old, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [_moved(inner, old, new) for inner in value]
    return value.replace(old, new) if isinstance(value, str) else value
