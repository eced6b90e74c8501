"""Walls of a machine that runs: QEMU's filter was loaded when it started, and nothing adds to it; helpers may come later."""

from __future__ import annotations

from tinamou import late
from tinamou.blueprint import Contribution, StartHelper
from tinamou.errors import ControlError
from tinamou.facts import Facts
from tinamou.facts.permits import Permits
from tinamou.probe.walls import probe_walls
from tinamou.spec import load_spec
from tinamou.state.folder import plan_data, update_plan
from tinamou.state.record import Record
from tinamou.system.jail import longer
from tinamou.tuning.group import longest
from tinamou.tuning.selinux import with_label
from tinamou.tuning.syscalls import EVERY, of_elements
from tinamou.tuning.walls import with_walls

__all__ = ["as_filtered", "refuse_calls", "walled", "widen"]


def _allowed(record: Record) -> frozenset[str] | None:
    """The groups it was started with; None where its filter is QEMU's own alone."""
    calls = plan_data(record)["confinement"].get("calls", ())
    return frozenset(one["group"] for one in calls) or None


def as_filtered(record: Record, facts: Facts) -> Facts:
    """What the host offers to a machine that runs: no way of queuing requests that its filter refuses."""
    mine = _allowed(record)
    if mine is None:
        return facts
    why = "the machine was started without it, and its filter of system calls refuses it since"
    offered = facts.permits
    ring, native = (why if way not in mine else was for way, was in _ways(offered))
    return late.replace(facts, permits=late.replace(offered, io_uring=ring, native=native))


def _ways(offered: Permits) -> tuple[tuple[str, str | None], ...]:
    return (("io_uring", offered.io_uring), ("native", offered.native))


def refuse_calls(record: Record, part: Contribution) -> None:
    """Raises ControlError for a part that would have QEMU make system calls for which it would be ended."""
    mine = _allowed(record)
    needed = of_elements(part.elements)
    lacking = [group for group in needed if mine is not None and group not in {*EVERY, *mine}]
    if lacking:
        why = f"it needs system calls ({', '.join(lacking)}) that the running QEMU was not allowed when it was started"
        fix = f"tinamou stop {record.name}, add it, and start again; or start with --set security.syscalls=qemu"
        raise ControlError("it cannot be plugged into this machine while it runs", why=why, fix=fix)


def widen(record: Record, disk: int) -> None:
    """Let QEMU's files become as long as a disk of that many bytes needs, which is plugged in or made larger."""
    bound = plan_data(record)["confinement"].get("file_size")
    wanted = longest([disk], load_spec(record.spec).memory.size)
    if bound is not None and wanted > bound:
        longer(record.pid, wanted)
        update_plan(record, lambda data: {**data, "confinement": {**data["confinement"], "file_size": wanted}})


def walled(record: Record, part: Contribution) -> Contribution:
    """The part with walls around its helpers, as those have that were started with the machine."""
    listed, facts = _allowed(record) is not None, probe_walls()
    label = plan_data(record)["confinement"].get("label") or ""
    steps = tuple(
        with_label(with_walls(step, facts, listed=listed), label) if isinstance(step, StartHelper) else step
        for step in part.steps
    )
    return late.replace(part, steps=steps)
