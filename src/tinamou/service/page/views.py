"""What is shown: machines, one machine, the host, operations, events, a form for a new one."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tinamou import late
from tinamou.errors import TinamouError
from tinamou.facts import files
from tinamou.machine import checkpoints
from tinamou.machine.disk_changes import listed
from tinamou.machine.host_picture import picture
from tinamou.machine.listing import described as everything
from tinamou.machine.parts_of import nics_of
from tinamou.machine.starting import plan_again
from tinamou.monitor.states import state_of
from tinamou.probe.host import probe_host
from tinamou.service import reading
from tinamou.service.auth import Caller, caller_of
from tinamou.service.page.describing import parts
from tinamou.service.page.rendering import page
from tinamou.service.shared import Service, existing
from tinamou.snapshots.history import load
from tinamou.state import machines, pools
from tinamou.state.record import Record
from tinamou.system.logs import last_lines
from tinamou.system.loop_thread import in_thread
from tinamou.system.shown import visible

__all__ = ["ACTIONS", "events", "forks", "host", "listing", "new", "one", "operations", "rows", "wrong"]

_MOST = 500
_OPERATIONS = 100
_PLOTTED = 30
"""Forks whose times are plotted."""
ACTIONS: dict[str, tuple[str, ...]] = {
    "running": ("stop", "pause", "suspend", "reset", "restart", "kill", "fork"),
    "paused": ("resume", "kill", "fork"),
    "suspended": ("resume", "kill"),
    "stopped": ("start",),
}
"""State → what can be done with one click."""


async def _shown(request: Request, service: Service) -> list[dict[str, Any]]:
    caller = caller_of(request.scope)
    seen = await service.lookout.seen()
    mine = set(caller.sees(row["name"] for row in seen.rows))
    numbers = await service.metrics.numbers() if caller.may("stats") else {}
    return [{**row, **numbers.get(row["name"], {})} for row in seen.rows if row["name"] in mine][:_MOST]


async def listing(request: Request, service: Service) -> Response:
    """The machines the caller may see."""
    return page(request, service, "machines.html", rows=await _shown(request, service))


async def rows(request: Request, service: Service) -> Response:
    """The rows of that page alone, for it to put in place of its own."""
    return page(request, service, "rows.html", rows=await _shown(request, service))


async def one(request: Request, service: Service) -> Response:
    """One machine."""
    name, caller = request.path_params["name"], caller_of(request.scope)
    caller.need("show", name)
    record = existing(name)
    state = (await state_of(record)).state
    values = await in_thread(_known, record)
    logs = visible(await in_thread(last_lines, record.file(files.SERIAL_LOG), 40)) if caller.may("logs", name) else ""
    actions = [verb for verb in ACTIONS.get(state, ("kill",)) if caller.may(_verb(verb), name)]
    wrong = [one for one in service.findings.lately() if one["machine"] == name]
    under_way = [one for one in service.work.every() if one["about"] == name][:10]
    return page(
        *(request, service, "machine.html"),
        terminal=True,
        state=state,
        record=record,
        actions=actions,
        operations=under_way,
        wrong=wrong,
        logs=logs,
        operation=request.query_params.get("operation", ""),
        ended=request.query_params.get("ended", ""),
        **{**values, **await _disks(record)},
    )


async def wrong(request: Request, service: Service) -> Response:
    """What is wrong with a machine now, for its page to put in place of what was found lately; its guest is asked."""
    name = existing(request.path_params["name"]).name
    caller_of(request.scope).need("show", name)
    found = [one for one in await service.findings.now() if one["machine"] == name]
    return page(request, service, "wrong.html", wrong=found)


async def lately(request: Request, service: Service) -> Response:
    """What a machine used at the last looks, as pictures."""
    name = existing(request.path_params["name"]).name
    caller_of(request.scope).need("stats", name)
    numbers = await service.metrics.numbers()
    return page(request, service, "lately.html", lately=numbers.get(name, {}).get("lately", []))


async def _disks(record: Record) -> dict[str, Any]:
    """A machine's disks, or why they cannot be told."""
    try:
        return {"disks": await listed(record), "disks_fault": ""}
    except TinamouError as error:
        return {"disks": [], "disks_fault": str(error)}


def _verb(action: str) -> str:
    """What a caller must be allowed for an action."""
    verbs = {"resume": "pause", "suspend": "pause", "reset": "stop", "kill": "stop", "restart": "start"}
    return verbs.get(action, action)


def _known(record: Record) -> dict[str, Any]:
    """What the state directory knows of a machine; what cannot be found out is said in its place."""
    try:
        plan = plan_again(record.name)
        explained, fault = (reading.explained(plan) if plan else None), ""
    except TinamouError as error:
        explained, fault = None, str(error)
    history = load(record.path)
    mine = [checkpoint for checkpoint in checkpoints.every() if checkpoint.machine == record.name]
    shown = everything(record)
    return {
        "shown": shown,
        "longest": max(record.timings.values(), default=0.0),
        "spec": json.dumps(record.spec, indent=2),
        "plan": explained,
        "plan_fault": fault,
        "history": history,
        "branches": _branches(history),
        "forks": [(checkpoint, checkpoints.children(checkpoint)) for checkpoint in mine],
        "nics": [late.asdict(nic) for nic in nics_of(record)],
    }


def _branches(history: Any, parent: int = 0, depth: int = 0) -> list[tuple[int, Any]]:
    """The snapshots, each with its depth in the tree."""
    found: list[tuple[int, Any]] = []
    waiting = [(depth, shot) for shot in reversed(history.children(parent))]
    while waiting:
        level, shot = waiting.pop()
        found.append((level, shot))
        waiting += [(level + 1, one) for one in reversed(history.children(shot.number))]
    return found


async def forks(request: Request, service: Service) -> Response:
    """What was forked from what, and the pools: those whose machines the caller may see."""
    caller = caller_of(request.scope)
    began = [one for one in service.work.every() if one["verb"] == "fork" and reading.may_see(service.work, caller, one)]
    took = [one["ended"] - one["started"] for one in began if one["state"] == "done"][:_PLOTTED]
    return page(request, service, "forks.html", took=took[::-1], **await in_thread(_forks, caller))


def _forks(caller: Caller) -> dict[str, Any]:
    mine = {one.name: one for one in machines.machines() if caller.may("show", one.name)}
    every_one = [one for one in checkpoints.every() if caller.may("show", one.machine)]
    rows = [
        {
            "checkpoint": one,
            "there": one.machine in mine,
            "forks": sorted(name for name, record in mine.items() if record.parent == one.name),
        }
        for one in every_one
    ]
    return {"checkpoints": rows, "pools": [one for one in pools.every() if caller.may("show", one.name)]}


async def host(request: Request, service: Service) -> Response:
    """The host's CPUs, who holds them, and what the doctor finds."""
    caller = caller_of(request.scope)
    caller.need("doctor")
    facts, held = await in_thread(probe_host), await in_thread(reading.held_by, caller)
    drawn = picture(facts, None, held, width=90)
    examined: Any = await reading.doctor(None)  # type: ignore[arg-type]
    order = {"bad": 0, "warning": 1, "unknown": 2}
    findings = sorted(examined["findings"], key=lambda one: order.get(one["severity"], 3))
    wrong = [one for one in await service.findings.now() if one["machine"] is None or caller.may("show", one["machine"])]
    return page(request, service, "host.html", drawn=drawn, findings=findings, wrong=wrong)


async def operations(request: Request, service: Service) -> Response:
    """What is and was under way."""
    caller = caller_of(request.scope)
    shown = [one for one in service.work.every() if reading.may_see(service.work, caller, one)][:_OPERATIONS]
    return page(request, service, "operations.html", operations=shown)


async def events(request: Request, service: Service) -> Response:
    """What happens, as it does."""
    caller_of(request.scope).need("events")
    return page(request, service, "events.html", last=service.feed.last)


async def new(request: Request, service: Service, **values: Any) -> Response:
    """The form for a new machine; ``values`` are what was written in it, its plan, or what is wrong."""
    caller_of(request.scope).need("create")
    shown = {"written": {"image": "tiny"}, "plan": None, "error": None, **values}
    return page(request, service, "new.html", 422 if shown["error"] else 200, parts=parts(), **shown)
