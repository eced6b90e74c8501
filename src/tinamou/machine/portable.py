"""Loading whole states: planned anew for this host, refused when the hardware would differ, loaded into a fresh QEMU."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Mapping
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.blueprint import Element, Flag, Plan, Why
from tinamou.control import Session, connect_qmp
from tinamou.control.commands import cont, stop
from tinamou.control.pipelined import Monitor
from tinamou.control.session import DisconnectedError
from tinamou.errors import ControlError, Problem, StateError, TinamouError
from tinamou.facts import QemuFacts, files
from tinamou.facts.qemu import numbered
from tinamou.guest.clock import ahead_of
from tinamou.guest.resident import Identity, connect
from tinamou.late import dataclass
from tinamou.launch.process import died
from tinamou.launch.process import start as launch
from tinamou.machine import fork_nets, shares
from tinamou.machine.booting import settle
from tinamou.machine.host_keys import Files
from tinamou.machine.starting import plan_again, prepared, run_facts
from tinamou.parts import pmem, usb
from tinamou.probe.qemu import probe_qemu
from tinamou.snapshots import fork, stream
from tinamou.snapshots.checkpoint import Checkpoint
from tinamou.snapshots.fork import Restored
from tinamou.snapshots.hardware import fitted
from tinamou.spec import dump_spec, load_spec
from tinamou.state.folder import image_of, plan_of, write_plan
from tinamou.state.record import Record, change
from tinamou.system.loop_thread import in_thread
from tinamou.units import Mac

__all__ = ["Loaded", "loaded", "said_outright", "saved_plan", "spec_for", "wake"]

_PLUGS = "plug"


def spec_for(checkpoint: Checkpoint, name: str, *, same: bool) -> dict[str, Any]:
    """The description of a machine made from a checkpoint: what tinamou chose for the saved one is now said outright.

    Addresses of network interfaces stay where it is to be the ``same`` machine, and are its own where it is a fork.
    """
    return said_outright(checkpoint.record, checkpoint.loaded_plan(), name, same=same)


def said_outright(record: Mapping[str, Any], saved: Plan, name: str, *, same: bool) -> dict[str, Any]:
    """The same of a machine's record, as plain data, and the plan it runs by."""
    spec = load_spec(record["spec"])
    macs = iter(str(element.props["mac"]) for element in saved.elements if "mac" in element.props)
    nets = []
    for one in spec.net:
        mac = next(macs, None) if one.type != "none" else None
        nets.append(late.replace(one, mac=Mac.parse(mac) if same and mac else None))
    spec = late.replace(spec, name=name, net=tuple(nets))
    if record.get("ephemeral") and any(flag.name == "kernel" for flag in saved.flags):
        spec = late.replace(spec, boot=late.replace(spec.boot, firmware="direct"))
    ports = sum(element.id.startswith(_PLUGS) for element in saved.elements) - len(spec.share)
    return dump_spec(late.replace(spec, devices=late.replace(spec.devices, hotplug=ports)))


async def saved_plan(record: Record, session: Session) -> Plan:
    """The plan of a running machine as it is now, with what was plugged in since it was started.

    Raises StateError, with every reason, for one whose state cannot be saved, or could not be loaded.
    """
    reasons = await stream.blockers(session)
    plan = plan_of(record)
    there = await stream.plugged(session) - _by_hand(plan)
    if there != _devices(plan):
        again = await asyncio.to_thread(plan_again, record.name, plan.machine_type)
        if again is not None and there == _devices(again):
            plan = again
    reasons += [f"{one} was plugged in while it ran and is not described" for one in sorted(there - _devices(plan))]
    reasons += [f"{one} was unplugged while it ran and is still described" for one in sorted(_devices(plan) - there)]
    reasons += [f"{element.id} is a device of this host's USB" for element in plan.elements if _is(element, usb.HOST)]
    unsaved = "is persistent memory, of which QEMU saves no state: the guest would wait for its writes for ever"
    reasons += [f"{element.props['memdev']} {unsaved}" for element in plan.elements if _is(element, pmem.DEVICE)]
    if reasons:
        problems = [Problem("state", None, reason) for reason in reasons]
        raise StateError(f"the state of {record.name} cannot be saved", problems=problems)
    return plan


def _devices(plan: Plan) -> set[str]:
    return {element.id for element in plan.elements if element.kind == "device"}


def _is(element: Element, driver: str) -> bool:
    return element.kind == "device" and element.props.get("driver") == driver


def _by_hand(plan: Plan) -> set[str]:
    """Ids in arguments that were passed on as they are."""
    return set(re.findall(r"\bid\"?[=:]\"?([\w.-]+)", " ".join(flag.value or "" for flag in plan.flags if not flag.name)))


async def wake(
    checkpoint: Checkpoint,
    record: Record,
    keys: Awaitable[Files],
    *,
    dies_with_parent: bool,
    stopped: bool,
    same: bool,
) -> Restored:
    """A machine from a portable checkpoint, with an identity of its own unless it is the ``same``. Raises as `loaded`."""
    async with loaded(checkpoint, record, dies_with_parent=dies_with_parent) as up:
        await cont(up.session)
        line = connect(str(record.file(files.RESIDENT))) if checkpoint.resident else None
        try:
            if line is not None:
                stays = Identity(ahead=ahead_of(up.record.spec))
                await line.become(stays if same else fork.identity_for(checkpoint, up.plan, await keys))
            notes = () if same else await fork_nets.ask_anew(up.record, checkpoint.loaded_plan(), up.plan, line)
            await shares.attach_to_fork(up.record, up.plan, line)
            if stopped:
                await stop(up.session)
        except BaseException:
            if line is not None:
                line.close()
            raise
    return Restored(up.record, up.plan, line, Monitor(str(record.file(files.QMP))) if stopped else None, notes)


@dataclass(frozen=True)
class Loaded:
    """A machine that holds a saved state and stands still: its record, plan and monitor."""

    record: Record
    plan: Plan
    session: Session


@contextlib.asynccontextmanager
async def loaded(saved: Checkpoint, record: Record, *, dies_with_parent: bool) -> AsyncIterator[Loaded]:
    """A QEMU into which the saved state was loaded; ``record`` is of a machine whose folder holds its disks.

    Raises StateError naming what differs from the hardware that was saved, LaunchError, ControlError; the caller ends the
    machine then.
    """
    plan = await in_thread(_planned, saved, record)
    await in_thread(write_plan, record, plan)
    waits = Why("saved state", "it waits for the state that is loaded, and stands still then")
    waiting = late.replace(plan, flags=(*plan.flags, Flag("incoming", waits, "defer"), Flag("S", waits)))
    process = launch(waiting, record.path, dies_with_parent=dies_with_parent)
    record = change(record, **run_facts(plan, process))
    await settle(record, plan)
    loading = True
    try:
        async with await connect_qmp(record.directory, owner=True, alive=lambda: record.running) as session:
            await stream.load(session, Path(saved.state.path), record.uid)
            loading = False
            yield Loaded(record, plan, session)
    except (DisconnectedError, ControlError) as error:
        reason: TinamouError = error if record.running else died(waiting, record.path, process.pid)
        reason = _not_loaded(saved, probe_qemu(plan.binary), reason) if loading else reason
        if reason is error:
            raise
        raise reason from error


def _not_loaded(saved: Checkpoint, now: QemuFacts, reason: TinamouError) -> TinamouError:
    """What to say: the reason alone where its own QEMU does not load it, and what to do where another was tried."""
    here = numbered(now.version)
    if here == saved.version and saved.package in ("", now.package):
        return reason
    by = f"QEMU {saved.version}" + (f" ({saved.package})" if saved.package else "")
    return StateError(
        f"QEMU {here} ({now.package or now.binary}) does not load a state of {by}",
        why=reason.why or reason.what,
        fix="the state is as it was: load it with that QEMU, installed again or named by TINAMOU_QEMU",
        evidence=reason.evidence,
    )


def _planned(saved: Checkpoint, record: Record) -> Plan:
    """The plan of the machine as it would be started here, everything done that it needs of the host."""

    def as_saved(plan: Plan) -> Plan:
        plan, found = fitted(plan, saved.loaded_plan())
        if found:
            problems = [Problem("hardware", None, one) for one in found]
            raise StateError(f"{record.name} would not be the machine that was saved", problems=problems)
        return plan

    stays = late.replace(record, ephemeral=False)
    return prepared(load_spec(record.spec), stays, image_of(record), str(saved.plan["machine_type"]), as_saved)
