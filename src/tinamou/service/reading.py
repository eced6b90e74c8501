"""What only looks: machines, plans, disks, numbers, the host, operations."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

from starlette.responses import PlainTextResponse, Response

from tinamou import late
from tinamou.blueprint import Plan
from tinamou.facts import files
from tinamou.guest.command import command, kept
from tinamou.launch.argv import argv, spelled
from tinamou.machine.disk_changes import listed
from tinamou.machine.host_side import leased
from tinamou.machine.listing import described as everything
from tinamou.machine.parts_of import nics_of
from tinamou.machine.planning import plan_only
from tinamou.machine.starting import plan_again
from tinamou.monitor import stats
from tinamou.monitor.states import state_of
from tinamou.operations import by_hand, commands, screens
from tinamou.probe.host import probe_host
from tinamou.service.auth import Caller
from tinamou.service.changing import snapshot_plain
from tinamou.service.descriptions import described
from tinamou.service.lookout import Seen
from tinamou.service.metrics import CONTENT_TYPE_LATEST
from tinamou.service.problems import MissingError
from tinamou.service.shared import existing
from tinamou.service.table import Asked, Written, written
from tinamou.service.work import Work
from tinamou.snapshots.history import load
from tinamou.spec import spec_schema
from tinamou.state.record import Record
from tinamou.state.tokens import VERBS
from tinamou.system.logs import kept as kept_log
from tinamou.system.loop_thread import in_thread
from tinamou.units import CpuSet

__all__ = ["explained"]

_PRINTED = 1 << 20


async def me(asked: Asked) -> Any:
    """Who the caller is, and what they may do."""
    caller: Caller = asked.caller
    verbs = sorted(VERBS) if "*" in caller.verbs else sorted(caller.verbs)
    return {"name": caller.name, "verbs": verbs, "machines": list(caller.machines)}


async def schema(_: Asked) -> Any:
    """JSON Schema of a machine's description."""
    return spec_schema()


async def listing(asked: Asked) -> Any:
    """The machines the caller may see, by name, as ``tinamou ls`` shows them."""
    seen, query = await asked.service.lookout.seen(), asked.query
    names = [name for name in asked.caller.sees(row["name"] for row in seen.rows) if name > query.after]
    page, more = names[: query.limit], len(names) > query.limit
    asked_for = (*page, more)
    if asked_for not in seen.pages:
        seen.pages[asked_for] = _written(seen, page, more)
    return seen.pages[asked_for].answer(asked.request)


def _written(seen: Seen, names: list[str], more: bool) -> Written:
    wanted, end = set(names), names[-1] if more else None
    rows = [row for row in seen.rows if row["name"] in wanted]
    unaged = [{key: value for key, value in row.items() if key != "age"} for row in rows]
    return written({"machines": rows, "next": end}, same=[unaged, end])


async def one(asked: Asked) -> Any:
    """Everything known about one machine, as ``tinamou show`` shows it."""
    record = existing(asked.name)
    seen = await state_of(record)
    return {**await in_thread(everything, record), "state": seen.state, "why": seen.why or None}


def explained(plan: Plan) -> dict[str, Any]:
    """A plan as plain data, each argument and step with its reason and who asked for it."""
    return {
        "name": plan.name,
        "arch": plan.arch,
        "machine_type": plan.machine_type,
        "accel": plan.accel,
        "binary": plan.binary,
        "argv": argv(plan),
        "arguments": [
            {"words": list(words), "asked_by": why.asked_by, "reason": why.reason} for words, why in spelled(plan)
        ],
        "steps": [
            {"step": type(step).__name__, "asked_by": step.why.asked_by, "reason": step.why.reason} for step in plan.steps
        ],
        "walls": [{"name": wall.name, "stands": wall.stands, "why": wall.why} for wall in plan.confinement.walls],
        "notes": [
            {"level": note.level, "text": note.text, "asked_by": note.why.asked_by, "reason": note.why.reason}
            for note in plan.notes
        ],
    }


async def plan(asked: Asked) -> Any:
    """What would be done for a description, and why; nothing is built, taken or started."""
    spec = described(asked.body.spec, asked.caller, "plan")
    return explained(await in_thread(plan_only, spec))


async def plan_of(asked: Asked) -> Any:
    """The plan of a machine's next start, and why it is so."""
    existing(asked.name)
    found = await in_thread(plan_again, asked.name)
    if found is None:
        raise MissingError(f"there is no machine named {asked.name}")
    return explained(found)


async def numbers(asked: Asked) -> Any:
    """What a machine uses, its processor over half a second, as ``tinamou stats --json`` prints it."""
    record = existing(asked.name)
    if not record.running:
        state = (await state_of(record)).state
        return {"name": record.name, "state": state, "missing": ["it does not run"]}
    return stats.plain(await stats.measure(record))


async def snapshots(asked: Asked) -> Any:
    """The snapshots of a machine's disks, oldest first; ``current`` is the number of the one they rest on."""
    history = load(existing(asked.name).path)
    return {"current": history.current or None, "snapshots": [snapshot_plain(shot) for shot in history.snapshots]}


async def disks(asked: Asked) -> Any:
    """The disks a machine's guest can write to."""
    return {"disks": list(await listed(existing(asked.name)))}


async def nics(asked: Asked) -> Any:
    """A machine's network cards."""
    record = existing(asked.name)
    return {"nics": [late.asdict(nic) for nic in await in_thread(nics_of, record)]}


async def logs(asked: Asked) -> Response:
    """The last lines a guest said on its console, or QEMU."""
    record, query = existing(asked.name), asked.query
    path = record.file(files.QEMU_LOG if query.source == "qemu" else files.SERIAL_LOG)
    data = await asyncio.to_thread(kept_log, path)
    return PlainTextResponse(b"".join(data.splitlines(keepends=True)[-query.tail :]).decode(errors="replace"))


async def screenshot(asked: Asked) -> Response:
    """What a machine's screen shows now, as PNG."""
    seen = await screens.screenshot(existing(asked.name).name)
    return Response(await in_thread(seen.picture.png), media_type="image/png", headers={"cache-control": "no-store"})


async def let_in(asked: Asked) -> Any:
    """Make a password for a machine's screen on its TCP port; it is in this answer alone."""
    return late.asdict(await by_hand.let_in(existing(asked.name).name, asked.body.seconds))


async def run(asked: Asked) -> Any:
    """Run a command in a guest and answer what it printed; waits for a guest that boots."""
    record: Record = existing(asked.name)
    body, out, err = asked.body, bytearray(), bytearray()
    what = command(body.argv, env=body.env, cwd=body.cwd, user=body.user)
    began = time.monotonic()
    status = await commands.stream(
        record.name,
        what,
        kept(out),
        kept(err),
        input=body.input.encode() if body.input else None,
        timeout=body.timeout,
        time_limit=body.time_limit,
    )
    return {"status": status, "seconds": round(time.monotonic() - began, 3), **_printed("out", out), **_printed("err", err)}


def _printed(name: str, data: bytearray) -> dict[str, Any]:
    """What a command printed: as text, or in base64 where it is none; at most 1 MiB of it."""
    shown, more = bytes(data[:_PRINTED]), len(data) > _PRINTED
    try:
        return {name: shown.decode(), f"{name}_encoding": "utf-8", f"{name}_cut": more}
    except UnicodeDecodeError:
        return {name: base64.b64encode(shown).decode(), f"{name}_encoding": "base64", f"{name}_cut": more}


async def operations(asked: Asked) -> Any:
    """The operations the caller may see, the newest first."""
    every = [one for one in asked.service.work.every() if may_see(asked.service.work, asked.caller, one)]
    numbers_of = [one["id"] for one in every]
    begin = numbers_of.index(asked.query.after) + 1 if asked.query.after in numbers_of else 0
    page = every[begin : begin + asked.query.limit]
    return {"operations": page, "next": page[-1]["id"] if len(every) > begin + len(page) else None}


def may_see(work: Work, caller: Caller, operation: dict[str, Any]) -> bool:
    """Whether an operation is the caller's own, or about a machine they may see."""
    return work.belongs(operation["id"], caller) or caller.may("show", operation["about"])


def _operation(asked: Asked) -> dict[str, Any]:
    shown: dict[str, Any] = asked.service.work.shown(asked.request.path_params["operation"])
    if not may_see(asked.service.work, asked.caller, shown):
        raise MissingError("there is no such operation")
    return shown


async def operation(asked: Asked) -> Any:
    """One operation; with ``wait`` once it has ended, or as it is after so many seconds."""
    shown = _operation(asked)
    return await asked.service.work.until_ended(shown["id"], asked.query.wait) if asked.query.wait else shown


async def cancel(asked: Asked) -> Any:
    """Ask an operation to end; it cleans up first."""
    shown = _operation(asked)
    if not asked.service.work.belongs(shown["id"], asked.caller):
        asked.caller.need("stop", shown["about"])
    return asked.service.work.cancel(shown["id"])


async def doctor(_: Asked) -> Any:
    """What stands in the way of fast and safe machines on this host, and what to do about it."""
    return await in_thread(_examined)


def _examined() -> dict[str, object]:
    from tinamou.doctor.examine import examine
    from tinamou.doctor.report import to_json
    from tinamou.doctor.this_host import this_host

    return to_json(examine(this_host()))


async def findings(asked: Asked) -> Any:
    """What is wrong with machines and their host now, as ``tinamou watch --once`` finds it; guests are asked."""
    found = await asked.service.findings.now()
    return {"findings": [one for one in found if one["machine"] is None or asked.caller.may("show", one["machine"])]}


async def host(asked: Asked) -> Any:
    """The host's processors and memory, and which of the machines the caller may see has which CPUs."""
    facts, held = await in_thread(probe_host), await in_thread(held_by, asked.caller)
    plain = json.loads(json.dumps(late.asdict(facts), default=str))
    return {"host": plain, "cpus_held": {name: str(cpus) for name, cpus in held.items()}}


def held_by(caller: Caller) -> dict[str, CpuSet]:
    """The CPUs that machines hold which the caller may see, by name."""
    return {name: cpus for name, cpus in leased("").items() if caller.may("doctor", name)}


async def metrics(asked: Asked) -> Response:
    """The numbers of machines and operations, in OpenMetrics."""
    text = await asked.service.metrics.text(asked.caller, asked.query.names)
    return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})
