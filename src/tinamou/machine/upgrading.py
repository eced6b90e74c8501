"""Another QEMU takes a running machine over: its memory where it lies, its devices by a stream of some kilobytes.

The new one is started beside the old, waits, and has everything but the devices' state. The machine stands still while
that goes from one to the other. Until the new one has it all the old one can go on; from the moment the record names the
new one the old one cannot. Where the memory is QEMU's own, the machine is suspended and resumed instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from tinamou import late
from tinamou.blueprint import Element, Flag, HandOver, Plan, StartHelper, Why
from tinamou.control import Event, Session, connect_qmp
from tinamou.control.commands import cont, getfd, migrate_incoming, set_migration, status, wait_migrated
from tinamou.errors import ControlError, Problem, StateError, TinamouError
from tinamou.facts.qemu import numbered
from tinamou.guest.carry.port import kept_out
from tinamou.guest.clock import Clock
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.launch.process import died
from tinamou.launch.process import start as launch
from tinamou.machine import encrypted, lines, shares, sockets_aside
from tinamou.machine.booting import settle
from tinamou.machine.connected import Connected
from tinamou.machine.lines import Line
from tinamou.machine.portable import saved_plan
from tinamou.machine.starting import plan_again, run_facts
from tinamou.machine.suspending import suspend, wake_up
from tinamou.machine.turns import turn
from tinamou.prepare import helper_processes
from tinamou.prepare.journal import Journal
from tinamou.probe.qemu import choosing
from tinamou.snapshots import branching, changes, save
from tinamou.snapshots.hardware import fitted
from tinamou.state.folder import write_plan
from tinamou.state.record import Record, change, read
from tinamou.system import ram
from tinamou.system.closing import Closing
from tinamou.system.descriptors import taken
from tinamou.system.loop_thread import in_thread
from tinamou.system.mappings import Mapping, changed, mapping_of
from tinamou.system.spawn import Process, end, wait_gone
from tinamou.tuning.memory import RAM

__all__ = ["Upgraded", "kept_from_it", "planned", "upgrade", "version_of"]

_SECONDS = 60.0
"""How long the state of the devices may take from one QEMU to the other."""
_EVENT_SECONDS = 10.0
_DYING_SECONDS = 0.5
"""How long a QEMU that does not take the state may be on its way out, once the other has noticed: its last words say why."""
_STREAM = "upgrade"


@dataclass(frozen=True)
class Upgraded:
    """What a machine ran on ``before`` and runs on ``after``: version and package of QEMU.

    It stood still for ``pause`` seconds, and all of it took ``took``. ``why`` is empty where the memory stayed where it is,
    else says why the machine was suspended and resumed. ``note`` is what must be said of its guest's clock, if anything.
    """

    name: str
    before: str
    after: str
    pause: float
    took: float
    why: str = ""
    note: str = ""


async def upgrade(machine: Connected, binary: str = "", *, progress: Progress = silent) -> Upgraded:
    """Put another QEMU under a running machine, ``binary`` or the one that is found now, as in ``$TINAMOU_QEMU``.

    Raises StateError, LaunchError, ControlError; the machine runs on as it was then.
    """
    record, began = machine.refresh(), time.perf_counter()
    encrypted.refuse(record, "upgraded")
    before = version_of(await machine.session())
    if not (now := await status(await machine.session())).running:
        raise StateError(
            f"{record.name} does not run: it is {now.state}", fix=f"let it run first: tinamou resume {record.name}"
        )
    async with turn(record, "upgrade"):
        plan = await saved_plan(record, await machine.session())
        with choosing(binary):
            if why := kept_from_it(plan):
                progress(f"{record.name} is suspended and resumed, as {why}: it stands still for longer", None)
                pause, clock = await _by_the_disk(machine, progress)
            else:
                pause = await _in_place(machine, plan)
                clock = await machine.set_clock()
        after = version_of(await machine.session())
    return Upgraded(record.name, before, after, pause, time.perf_counter() - began, why, clock.note)


def version_of(session: Session) -> str:
    """The version of the QEMU that answers, with its package's."""
    return numbered(session.version, session.package)


def kept_from_it(plan: Plan) -> str:
    """Why the memory and the devices cannot go from one QEMU to the other directly; empty where they can."""
    if not save.forkable(plan):
        return "its memory is QEMU's own (memory.forkable would change that)"
    if why := lines.why_no_line(plan):
        return f"its network's connection cannot be handed on: {why}"
    handed = {*(step.socket for step in _twice(plan)), *lines.paths(plan)}
    for step in plan.steps:
        if isinstance(step, HandOver) and step.access == "connect" and step.path not in handed:
            return f"its QEMU has a connection to a helper ({Path(step.path).name}) that cannot be made twice"
    if any(flag.name in ("vnc", "spice") for flag in plan.flags) and not _screens(plan):
        return "its screen is served on an address that cannot be taken twice"
    for element in plan.elements:
        address = element.props.get("addr")
        one = isinstance(address, dict) and address.get("path") in handed
        if element.kind == "netdev" and not one and element.props.get("type") not in ("user", "tap", "hubport"):
            return f"its network {element.id} ({element.props.get('type')}) cannot be connected twice"
    return ""


def _twice(plan: Plan) -> list[StartHelper]:
    """Helpers whose state travels with the devices' own, so that each QEMU can have one: what emulates a TPM.

    Both have one folder: the first one says nothing to it from when the machine stands still, and the second is handed what
    the first has in memory, and writes it as it is (source: QEMU docs/specs/tpm.rst, swtpm_ioctl(8)).
    """
    return [step for step in plan.steps if isinstance(step, StartHelper) and step.travels]


async def _by_the_disk(machine: Connected, progress: Progress) -> tuple[float, Clock]:
    """Suspend and resume; where the new QEMU does not take the state, the old one does.

    Returns the seconds in between, and what became of the guest's clock.
    """
    record, ours = machine.record, machine.record.owned
    began = time.perf_counter()
    await suspend(machine)
    try:
        awake = await wake_up(machine.refresh(), dies_with_parent=ours)
    except TinamouError:
        progress(f"{record.name} is not taken up by the new QEMU; the old one does so", None)
        with choosing(record.binary):
            await wake_up(machine.refresh(), dies_with_parent=ours)
        raise
    finally:
        if not ours:
            change(machine.refresh(), owner_pid=0, owner_started=0)
        machine.refresh()
    return time.perf_counter() - began, awake.clock


async def _in_place(machine: Connected, plan: Plan) -> float:
    record = machine.record
    new = await in_thread(planned, record, plan)
    async with kept_out(record.directory, await machine.session()), shares.taken_out(machine):
        with branching.reached(record.pid, record.name, save.memory_of(plan)) as (memory, _, mapping):
            if mapping.private and (why := branching.why_not()):
                raise StateError(f"the memory of {record.name} cannot be handed on", why=why)
            with save.marked(record):
                pause = await _taken_over(machine, new, memory, mapping)
    return pause


def planned(record: Record, plan: Plan) -> Plan:
    """The plan of the same machine for the new QEMU. Raises StateError where it would be another one.

    A device the new one could have beside and the machine has not is left out.
    """
    new = plan_again(record.name, plan.machine_type)
    if new is None:
        raise StateError(f"machine {record.name} is gone", why="another command removed it", fix="tinamou ls")
    new, found = fitted(new, plan)
    if found:
        problems = [Problem("hardware", None, one) for one in found]
        raise StateError(f"{record.name} would not be the machine it is", problems=problems, fix="start it again instead")
    return new


async def _taken_over(machine: Connected, plan: Plan, memory: int, mapping: Mapping) -> float:
    old = machine.record
    with lines.taken_along(old, plan) as (connections, given):
        sockets_aside.put_aside(old, _aside(plan))
        try:
            async with _waiting(old, plan, memory, mapping, connections, given) as (process, new, receiving):
                pause = await _switched(machine, plan, mapping, connections, (process, new, receiving))
        except BaseException:
            taken_over = machine.refresh().pid != old.pid
            if taken_over:
                await in_thread(end, Process(old.pid, old.started))
                await machine.anew()
            await in_thread(helper_processes.settle, Journal(old.path), machine.record.pid)
            sockets_aside.settle(machine.record)
            await asyncio.shield(save.let_run_on(await machine.session()))
            raise
    await machine.anew()
    await in_thread(helper_processes.settle, Journal(old.path), machine.record.pid)
    sockets_aside.forget(old.path)
    return pause


async def _switched(
    machine: Connected,
    plan: Plan,
    mapping: Mapping,
    connections: list[Line],
    waiting: tuple[Process, Session, socket.socket],
) -> float:
    """Have the QEMU that waits go on where the old one stops; the seconds in between."""
    old, (process, new, receiving) = machine.record, waiting
    await lines.hold(connections, Process(old.pid, old.started))
    stopped = await _carried(machine, old, process, new, mapping, receiving)
    await lines.put_in(connections, process.pid)
    record = await in_thread(_is_now, old, plan, process)
    with new.listen("RESUME") as events:
        await cont(new)
        async with asyncio.timeout(_EVENT_SECONDS):
            resumed = await events.next()
    await in_thread(end, Process(old.pid, old.started))
    lines.let_go(connections)
    await _lead_in(new, plan)
    await settle(record, plan)
    return resumed.at - stopped.at


def _aside(plan: Plan) -> list[str]:
    """What of the QEMU that runs would be in the way of the next one."""
    listening = [step.path for step in plan.steps if isinstance(step, HandOver) and step.access == "listen"]
    helpers = [step.socket for step in _twice(plan)]
    locks = [str(Path(socket).with_name(sockets_aside.LOCK)) for socket in helpers]
    return [*listening, *_screens(plan), *helpers, *locks]


def _screens(plan: Plan) -> list[str]:
    """Unix sockets on which QEMU serves its screen: it makes them itself, whatever has that name."""
    vnc = [str(flag.value).removeprefix("unix:") for flag in plan.flags if flag.name == "vnc" and "unix:" in str(flag.value)]
    spice = [str(flag.options["addr"]) for flag in plan.flags if flag.name == "spice" and flag.options.get("unix") == "on"]
    return [*vnc, *spice]


@contextlib.asynccontextmanager
async def _waiting(
    old: Record, plan: Plan, memory: int, mapping: Mapping, connections: list[Line], stand_ins: dict[str, int]
) -> AsyncIterator[tuple[Process, Session, socket.socket]]:
    """A QEMU that has the machine's memory and waits for the state of its devices; what that is sent into.

    It is ended where the block raises before the record names it.
    """
    for helper in _twice(plan):
        await in_thread(helper_processes.start, helper, Journal(old.path), beside=old.pid)
    ours, theirs = socket.socketpair()
    with ours, _given(old, plan, memory, mapping) as (given, template):
        given.update(stand_ins)
        stand_ins.clear()  # closed with the others from here on
        with theirs:
            waits = Why("upgrade", "it waits for the state of the devices, and stands still then")
            flags = (*plan.flags, Flag("incoming", waits, "defer"), Flag("S", waits))
            waiting = late.replace(plan, flags=flags, elements=_without_ports(plan))
            inherit = (theirs.fileno(), *([] if template is None else [template]), *(one.real for one in connections))
            process = await in_thread(launch, waiting, old.path, dies_with_parent=old.owned, inherit=inherit, given=given)
            number = theirs.fileno()
        alive = late.replace(old, pid=process.pid, started=process.started)
        try:
            async with await connect_qmp(old.directory, owner=True, alive=lambda: alive.running) as session:
                if template is not None:
                    size, merge = mapping.size, any(e.id == RAM and e.props["merge"] is True for e in plan.elements)
                    await branching.put_on(process.pid, template, None, size, merge=merge)
                await set_migration(session, capabilities={"x-ignore-shared": True})
                await migrate_incoming(session, f"fd:{number}")
                yield process, session, ours
        except BaseException as error:
            refused = isinstance(error, ControlError) and await in_thread(wait_gone, process, _DYING_SECONDS)
            if _named(old) != process.pid:
                await in_thread(end, process)
            if refused:
                raise died(waiting, old.path, process.pid) from error
            raise


def _named(record: Record) -> int:
    found = read(record.path)
    return found.pid if found else 0


@contextlib.contextmanager
def _given(old: Record, plan: Plan, memory: int, mapping: Mapping) -> Iterator[tuple[dict[str, int], int | None]]:
    """What the new QEMU gets that is the old one's, by the plan's path; and the frozen memory it is put on.

    Those given are closed by who starts it.
    """
    path = next(step.path for step in plan.steps if isinstance(step, HandOver) and step.access == "memory")
    given = {path: ram.blank(ram.NAME, mapping.size) if mapping.private else taken(old.pid, _number(old, mapping))}
    yield given, memory if mapping.private else None


def _number(old: Record, mapping: Mapping) -> int:
    found, numbers = ram.memory_of(old.pid, mapping.inode, mapping.size)
    os.close(found)
    return numbers[0]


def _without_ports(plan: Plan) -> tuple[Element, ...]:
    """QEMU's own network without the ports of the host that lead into it, which the old one still has."""
    return tuple(
        late.replace(one, props={key: value for key, value in one.props.items() if key != "hostfwd"})
        if one.kind == "netdev"
        else one
        for one in plan.elements
    )


async def _lead_in(session: Session, plan: Plan) -> None:
    """Lead the host's ports into the guest again. Raises ControlError for one that somebody else took meanwhile."""
    for element in plan.elements:
        rules = element.props.get("hostfwd") if element.kind == "netdev" else None
        for rule in rules if isinstance(rules, list) else ():
            text = rule["str"] if isinstance(rule, dict) else rule
            line = f"hostfwd_add {element.id} {text}"
            said = str(await session.execute("human-monitor-command", command_line=line)).strip()
            if said:
                raise ControlError(f"the port of {text} does not lead into the guest any more", why=said)


async def _carried(
    machine: Connected, old: Record, process: Process, new: Session, mapping: Mapping, into: socket.socket
) -> Event:
    """Stop the machine, and give the new QEMU what it changed and the state of its devices; returns when it was stopped."""
    session = await machine.session()

    async def bring_over() -> None:
        if mapping.private:
            await in_thread(_bring_over, old.pid, mapping, process.pid)

    with session.listen("STOP") as events:
        await set_migration(session, capabilities=save.DEVICES, parameters=save.FAST)
        await getfd(session, into.fileno(), _STREAM)
        async with asyncio.timeout(_SECONDS):
            await save.send_state(session, f"fd:{_STREAM}", bring_over)
            await wait_migrated(new)
            return await events.next()


def _bring_over(pid: int, mapping: Mapping, to: int) -> None:
    """What the machine changed since its memory was frozen."""
    with Closing(changes.room_for(0)) as side:
        changes.save(side, pid, mapping, changed(pid, mapping))
        changes.apply(side, to, mapping_of(to, mapping.size))


def _is_now(old: Record, plan: Plan, process: Process) -> Record:
    """From here on the machine is the new QEMU's."""
    write_plan(old, plan)
    facts = run_facts(plan, process)
    return change(old, **facts)
