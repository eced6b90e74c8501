"""From a spec to a running QEMU: probe, plan, prepare, launch; each stage timed, nothing left behind when one fails."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.blueprint import Note, Plan
from tinamou.errors import StateError
from tinamou.facts import Facts, ImageFacts, Place, files
from tinamou.facts.host import Grouping
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.launch.process import start as launch
from tinamou.machine import named
from tinamou.machine.chains import put_right_at_rest, refuse_shared
from tinamou.machine.description import settled
from tinamou.machine.gather import gather, resolve_image
from tinamou.machine.host_side import claims, leased, without_huge_pages
from tinamou.machine.reconcile import claim, end_machine, reconcile
from tinamou.machine.turns import turn_blocking
from tinamou.parts.boot import guest_of
from tinamou.parts.confidential import encrypted_by
from tinamou.planner import plan as make_plan
from tinamou.prepare.apply import apply
from tinamou.prepare.shortage import CpusTakenError, GroupRefusedError, PagesShortError
from tinamou.probe.qemu import probe_qemu
from tinamou.snapshots.orphans import is_suspended
from tinamou.spec import MachineSpec, dump_spec, load_spec
from tinamou.state import machines, moves
from tinamou.state.folder import image_of, write_image, write_plan
from tinamou.state.index import Look, look
from tinamou.state.record import Record, change, read
from tinamou.system.closing import IfFailed
from tinamou.system.spawn import Process, process_of

__all__ = [
    "Started",
    "begin",
    "begin_again",
    "facts_again",
    "plan_again",
    "prepared",
    "run_facts",
]


@dataclass(frozen=True)
class Started:
    """A machine whose QEMU has been started: its record, and the plan it was started from."""

    record: Record
    plan: Plan


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.stages: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage] = round(now - self.last, 4)
        self.last = now


def plan_again(name: str, machine_type: str = "") -> Plan | None:
    """The plan of a machine that exists, as its next start would follow it; None where there is no such machine.

    With ``machine_type`` it is one on that board, of what the machine is now: what is to come at its start is left out.
    """
    record = read(machines.machines_dir() / name) if name and "/" not in name else None
    if record is None:
        return None
    spec = load_spec(record.spec if machine_type else record.next_spec)
    named.check(spec)
    return make_plan(spec, facts_again(record, spec, machine_type))


def facts_again(record: Record, spec: MachineSpec, machine_type: str = "") -> Facts:
    """Everything known about a machine that exists, for planning it as ``spec``."""
    return gather(spec, image_of(record), _place(record, machine_type))


def begin(spec: MachineSpec, *, ephemeral: bool, dies_with_parent: bool = False, progress: Progress = silent) -> Started:
    """Create a machine and start its QEMU. Raises the stage's error; the machine is gone again then."""
    clock = _Clock()
    spec = named.absolute(spec)
    named.check(spec)
    reconcile()
    image = resolve_image(spec, build=True, progress=progress)
    clock.lap("image")
    name = spec.name or machines.throwaway_name(spec.image)
    record: Record | None = None
    try:
        with machines.making(name) as directory:
            found = look()
            fresh = _record(spec, directory, image, ephemeral, found)
            write_image(fresh, image)  # before its record, with which it is a machine that can be started again
            (record,) = machines.entered(fresh, found=found)
        return _start(spec, record, image, clock, dies_with_parent)
    except BaseException as error:
        if record is not None:
            end_machine(late.replace(record, ephemeral=True))
        elif not isinstance(error, Exception):  # interrupted while its folder was made: one that nobody holds is a leftover
            reconcile()
        raise


def begin_again(record: Record, *, dies_with_parent: bool = False) -> Started:
    """Start a machine that is stopped, from its own record and disks. Raises the stage's error; it is stopped again then."""
    if is_suspended(record):
        fix = f"tinamou resume {record.name} goes on where it was; tinamou kill {record.name} gives the saved state up"
        raise StateError(
            f"machine {record.name} is suspended", why="a start would lose the state it was saved with", fix=fix
        )
    spec = load_spec(record.next_spec)
    named.check(spec)
    record = settled(claim(record))
    with IfFailed(lambda: end_machine(record)), turn_blocking(record, "start"):
        put_right_at_rest(record)
        record, image = _image_again(record, spec)
        return _start(spec, record, image, _Clock(), dies_with_parent)


def _image_again(record: Record, spec: MachineSpec) -> tuple[Record, ImageFacts]:
    """The image a machine was made from. One without a disk that was built here, and whose files are gone, is built anew:
    the cache may be cleared, and nothing of the machine's rests on them."""
    image = image_of(record)
    if not image.built or image.disk or all(Path(one).exists() for one in (image.kernel, image.initrd) if one):
        return record, image
    image = resolve_image(spec, build=True)
    write_image(record, image)
    return change(record, agent=image.agent, resident=image.resident), image


def _record(spec: MachineSpec, directory: Path, image: ImageFacts, ephemeral: bool, found: Look) -> Record:
    me, image = process_of(os.getpid()), guest_of(spec, image)
    return Record(
        name=directory.name,
        directory=str(directory),
        spec=dump_spec(late.replace(spec, name=directory.name)),
        ephemeral=ephemeral,
        uid=machines.lease_uid(directory, found),
        created=time.time(),
        arch=image.arch,
        image=spec.image,
        ssh_port=machines.free_port() if image.may_have_sshd else None,
        ssh_user=spec.seed.user or image.user,
        agent=image.agent,
        resident=image.resident,
        owner_pid=me.pid,
        owner_started=me.started,
    )


def _start(spec: MachineSpec, record: Record, image: ImageFacts, clock: _Clock, dies_with_parent: bool) -> Started:
    plan = _prepared(spec, record, image, clock)
    write_plan(record, plan)
    log = record.file(files.SERIAL_LOG)
    log_from = log.stat().st_size if log.exists() else 0
    process = launch(plan, record.path, dies_with_parent=dies_with_parent)
    clock.lap("launch")
    record = change(record, **run_facts(plan, process), log_from=log_from, timings=clock.stages, notes=[])
    if spec.replicate.to:
        from tinamou.machine.schedules import replicate

        replicate(record, spec)
    return Started(record, plan)


def run_facts(plan: Plan, process: Process) -> dict[str, Any]:
    """What a machine's record says of its QEMU, which has been started from the plan."""
    return {
        "pid": process.pid,
        "started": process.started,
        "ended": "",
        "accel": plan.accel,
        "machine_type": plan.machine_type,
        "binary": plan.binary,
        "package": probe_qemu(plan.binary).package,
        "pinning": [str(cpus) for cpus in plan.pinning.vcpus] if plan.pinning else [],
        "encrypted": encrypted_by(plan.elements),
    }


def prepared(
    spec: MachineSpec, record: Record, image: ImageFacts, machine_type: str, fitted: Callable[[Plan], Plan]
) -> Plan:
    """Plan and prepare a machine of that board whose folder is there; ``fitted`` gives the plan to follow, or raises."""
    return _prepared(spec, record, image, _Clock(), machine_type, fitted)


def _prepared(
    spec: MachineSpec,
    record: Record,
    image: ImageFacts,
    clock: _Clock,
    machine_type: str = "",
    fitted: Callable[[Plan], Plan] = lambda plan: plan,
) -> Plan:
    """Plan and prepare; plans anew when another machine took the same CPUs meanwhile, or huge pages ran short."""
    said: tuple[Note, ...] = ()
    ungrouped: Grouping | None = None
    while True:
        facts = gather(spec, image, _place(record, machine_type))
        if ungrouped:
            facts = late.replace(facts, host=late.replace(facts.host, grouping=ungrouped))
        if moves.phase(record) != moves.ARRIVING:  # its source writes to disks that both see, and QEMU's locks go over
            refuse_shared(facts.chains)
        clock.lap("probe")
        plan = fitted(make_plan(spec, facts))
        clock.lap("plan")
        try:
            apply(plan.steps, Path(record.directory))
        except CpusTakenError:
            continue
        except PagesShortError as error:
            spec, note = without_huge_pages(spec, error)
            said = (note,)
            continue
        except GroupRefusedError as error:
            ungrouped = Grouping(fault=error.why or error.what)
            continue
        clock.lap("prepare")
        return late.replace(plan, notes=(*plan.notes, *said))


def _place(record: Record, machine_type: str) -> Place:
    """Where a machine's files are, what was leased to it, and the board it must have."""
    return Place(
        record.name,
        record.directory,
        record.uid,
        record.ssh_port or 0,
        leased=leased(record.directory),
        claims=claims(record.directory),
        throwaway=record.ephemeral,
        machine_type=machine_type,
        identity=record.identity,
        copied=bool(record.base),
    )
