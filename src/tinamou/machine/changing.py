"""A machine's description changed as a whole: checked before it is taken, in effect at once where QEMU can, else later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from tinamou import fields, late
from tinamou.blueprint import Plan
from tinamou.errors import PlanError, Problem, SpecError, StateError, TinamouError
from tinamou.facts import files
from tinamou.late import dataclass
from tinamou.launch.difference import Difference, differences
from tinamou.machine import changing_live, named
from tinamou.machine.assignments import assign, put, with_lists
from tinamou.machine.changing_live import Live, Wanted
from tinamou.machine.description import describe_later
from tinamou.machine.disk_plugging import next_number, plug
from tinamou.machine.starting import facts_again
from tinamou.machine.turns import turn
from tinamou.parts.disk import DiskSpec, numbered
from tinamou.planner import plan
from tinamou.snapshots.history import load
from tinamou.snapshots.orphans import is_suspended
from tinamou.spec import ELEMENTS, MachineSpec, dump_spec, load_spec
from tinamou.state import machines
from tinamou.state.folder import image_of
from tinamou.state.record import Record, newest
from tinamou.system.loop_thread import in_thread

__all__ = ["Altered", "Change", "alter", "changes_between", "make_it"]

Effect = Literal["now", "next start"]

_FIXED = {
    "name": "tinamou rename gives it another name",
    "image": "its disk rests on that image: tinamou run another machine of the other one",
    "arch": "its disk holds programs of that architecture",
    "cpu.plugged": "cpu.count says how many it is to have",
}
_OF_A_DISK = ("path", "format", "key", "number", "port", "interface")
"""Fields by which a disk is found, or its file read: another disk is another one."""


@dataclass(frozen=True)
class Change:
    """One field that was changed: what it was, what it is to be (None: nothing), when that is so, what is to be said."""

    field: str
    before: Any
    after: Any
    effect: Effect
    why: str = ""


@dataclass(frozen=True)
class Altered:
    """What was changed of a machine, and what it changes in the plan of its next start."""

    machine: str
    changes: tuple[Change, ...] = ()
    plan: tuple[Difference, ...] = ()


async def alter(
    name: str, assignments: Sequence[str] = (), settings: Mapping[str, Any] | None = None, *, dry_run: bool = False
) -> Altered:
    """Change fields of a machine's description: ``assignments`` as `tinamou.machine.assignments`, ``settings`` by name.

    Nothing is changed where one of them cannot be, or with ``dry_run``. Raises SpecError, PlanError, PrepareError with every
    problem, StateError.
    """

    def wanted(now: MachineSpec) -> MachineSpec:
        data = with_lists(now, dump_spec(now))
        assign(data, assignments, said="what is to be set")
        put(data, settings or {})
        return load_spec(data)

    return await make_it(name, wanted, what="set", dry_run=dry_run)


async def make_it(name: str, wanted: Callable[[MachineSpec], MachineSpec], *, what: str, dry_run: bool = False) -> Altered:
    """Make a machine what ``wanted`` makes of its description from the next start on. Raises as `alter`."""
    async with turn(machines.find(name), what) as record:
        old = load_spec(record.next_spec)
        new = named.absolute(wanted(old))
        changed = changes_between(old, new)
        _refuse(record, old, new, [field for field, _, _ in changed])
        before, after = await in_thread(_plans, record, old, new)
        told = Altered(name, plan=differences(before, after) if before else ())
        if not dry_run:
            done = await _carry_out(record, old, new, changed)
            return late.replace(told, changes=done)
        shown = tuple(Change(field, a, b, "next start", "nothing was changed") for field, a, b in changed)
        return late.replace(told, changes=shown)


def _refuse(record: Record, old: MachineSpec, new: MachineSpec, changed: Sequence[str]) -> None:
    """Raises SpecError for what no machine can be made to be afterwards."""
    problems = [Problem(field, None, "cannot be changed", _FIXED[field]) for field in changed if field in _FIXED]
    names = [f"disk{number}" for number, _ in numbered(old.disk, 1 if image_of(record).disk else 0)]
    for index, name in enumerate(names):
        problems += _disk_problems(record.name, name, index, old.disk[index], new)
    problems += _store_problems(record, old, new)
    if record.ephemeral and not record.running:
        problems.append(Problem("name", record.name, "is thrown away when it ends", "start one that stays"))
    if problems:
        raise SpecError(f"{record.name} cannot be changed so", problems=problems)


def _disk_problems(machine: str, name: str, index: int, old: DiskSpec, new: MachineSpec) -> Iterator[Problem]:
    if index >= len(new.disk):
        fix = f"tinamou disk rm {machine} {name}: what is on it goes with it"
        yield Problem(f"disk[{index}]", None, "is not taken away by a description that lacks it", fix)
        return
    one = new.disk[index]
    for field in _OF_A_DISK:
        disc = field == "path" and old.interface == one.interface == "cdrom"
        if getattr(old, field) != getattr(one, field) and not disc:
            fix = f"tinamou disk rm {machine} {name} and add another: disk+=…"
            yield Problem(f"disk[{index}].{field}", getattr(one, field), f"{name} would be another disk", fix)
    if old.size and one.size and one.size < old.size:
        reason = f"it has {old.size}; a smaller one would cut off its end"
        yield Problem(f"disk[{index}].size", str(one.size), reason, "choose more")


def _store_problems(record: Record, old: MachineSpec, new: MachineSpec) -> Iterator[Problem]:
    """A store of variables that is in use, or belongs to a saved state, is not another one's at the next start."""
    if _store_changes(record, old, new) and (record.running or is_suspended(record)):
        field = "boot.secure_keys" if new.boot.secure_keys != old.boot.secure_keys else "boot.secure"
        reason = f"{record.name} {'runs with' if record.running else 'is suspended with'} the store of keys it has"
        yield Problem(field, getattr(new.boot, field.partition(".")[2]), reason, f"tinamou stop {record.name} first")


def _store_changes(record: Record, old: MachineSpec, new: MachineSpec) -> bool:
    """Whether its firmware is to trust other keys, or none: what is enrolled lies in its store, which starts keep."""
    differs = (old.boot.checked, old.boot.secure_keys) != (new.boot.checked, new.boot.secure_keys)
    return differs and record.file(files.UEFI_VARS).exists()


def _put_store_aside(record: Record) -> Change:
    aside = record.file(f"{files.UEFI_VARS}.before")
    record.file(files.UEFI_VARS).replace(aside)
    why = f"its firmware's variables, which hold keys and boot entries, are made anew; the old ones are kept as {aside.name}"
    return Change("boot", files.UEFI_VARS, None, "now", why)


def _plans(record: Record, old: MachineSpec, new: MachineSpec) -> tuple[Plan | None, Plan]:
    """The plans of the next start, as it would have been (None where it could not have been), and as it will be.

    Raises PlanError, PrepareError with every problem of the new one.
    """
    named.check(new)
    try:
        before: Plan | None = plan(old, facts_again(record, old))
    except PlanError:
        before = None
    return before, plan(new, facts_again(record, new))


def changes_between(old: MachineSpec, new: MachineSpec) -> list[tuple[str, Any, Any]]:
    """Every field that differs, ``net[0].forward``, with both values as plain data; of a new element the whole of it."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    both = [one for one in before if one in after and before[one] != after[one] and not isinstance(before[one], dict)]
    single = [one for one in (*before, *after) if (one in before) != (one in after) and "]." not in one]
    return [(one, before.get(one), after.get(one)) for one in (*both, *single)]


def _leaves(part: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each field's path and value; each element of a list of tables once as a whole, and then its fields."""
    for one in late.fields(part):
        value, here = getattr(part, one.name), f"{path}{one.name}"
        if here == "cpu.count":
            yield here, part.present
        elif here == "cpu.plugged":
            continue
        elif late.is_dataclass(value) and not isinstance(value, fields.PARSED):
            yield from _leaves(value, f"{here}.")
        elif not path and one.name in ELEMENTS:
            for index, element in enumerate(value):
                if getattr(element, "type", "") != "none":  # the place of a card that was taken away
                    yield f"{here}[{index}]", fields.plain(element)
                    yield from _leaves(element, f"{here}[{index}].")
        else:
            yield here, fields.plain(value)


async def _carry_out(
    record: Record, old: MachineSpec, new: MachineSpec, changed: Sequence[tuple[str, Any, Any]]
) -> tuple[Change, ...]:
    """Put in effect what can be now, then write down what is to be from the next start on."""
    off, why = not record.running, _why_later(record)
    done: list[Change] = []
    failed: set[str] = set()
    if _store_changes(record, old, new):
        done.append(_put_store_aside(record))
    for field, before, after in sorted(changed, key=lambda one: not changing_live.DISK_SIZE.fullmatch(one[0])):
        try:
            if (kind := field.partition("[")[0]) in failed and field.endswith("]"):
                raise StateError("the one before it could not be added")
            said = await _now(record, field, new, off=off)
        except TinamouError as error:
            if changing_live.DISK_SIZE.fullmatch(field):  # no start makes up for it
                raise
            reason = f"{error.what}: {error.why}" if error.why else error.what
            done.append(Change(field, before, after, "next start", reason))
            failed.add(kind)
            continue
        effect: Effect = "next start" if said is None else "now"
        done.append(Change(field, before, after, effect, why if said is None else said))
    now = newest(record)
    described = _with_added(new, old, load_spec(now.next_spec), next_number(now, load(record.path)))
    describe_later(record, lambda _: described)
    return tuple(done)


def _why_later(record: Record) -> str:
    if is_suspended(record):
        return "it is suspended, and goes on as what it was"
    if record.ephemeral:
        return "which never comes: it is thrown away when it ends"
    return "it is fixed while the machine runs" if record.running else ""


async def _now(record: Record, field: str, new: MachineSpec, *, off: bool) -> str | None:
    """Put one change in effect; what is to be said of it, None where it has to wait for the next start."""
    if is_suspended(record):
        if changing_live.DISK_SIZE.fullmatch(field):
            why = "the memory it was saved with belongs to its disks as they are"
            raise StateError(
                f"{field} of a suspended machine stays", why=why, fix=f"tinamou resume {record.name}, then set it"
            )
        return None
    if match := changing_live.NEW_DISK.fullmatch(field):
        await plug(record, new.disk[int(match[1])])
        return ""
    if match := changing_live.DISK_SIZE.fullmatch(field):
        return await changing_live.resize(Live(record, Wanted(field, new)), match)
    if off:
        return None
    return await changing_live.put_in_effect(record, Wanted(field, new))


def _with_added(new: MachineSpec, old: MachineSpec, fresh: MachineSpec, number: int) -> MachineSpec:
    """The description with the disks and cards that were added at once, as they are now: each has its number and slot.

    Disks that are to come with the next start have the numbers from ``number`` on, which none that is plugged until then
    gets.
    """
    disks = (*new.disk[: len(old.disk)], *fresh.disk[len(old.disk) :])
    missing = (late.replace(one, number=number + place) for place, one in enumerate(new.disk[len(disks) :]))
    count = len(old.net)
    nets = (*new.net[:count], *fresh.net[count : len(new.net)])
    return late.replace(new, disk=(*disks, *missing), net=(*nets, *new.net[len(nets) :]))
