"""What changes machines: each request becomes an operation over the same use cases as the command's."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.responses import Response

from tinamou import late
from tinamou.errors import Problem, SpecError, StateError
from tinamou.guest.ready import ReadyReport
from tinamou.images.progress import Progress
from tinamou.machine import snapshots as disks
from tinamou.machine.listing import described as everything
from tinamou.operations import machines as cases
from tinamou.operations import network, states
from tinamou.operations.machines import Launched
from tinamou.service.descriptions import described
from tinamou.service.problems import MissingError
from tinamou.service.shared import existing
from tinamou.service.table import Asked, as_json
from tinamou.service.work import Asking, Task
from tinamou.snapshots.checkpoint import Checkpoint
from tinamou.snapshots.history import Snapshot, load
from tinamou.spec import MachineSpec, dump_spec
from tinamou.state import machines
from tinamou.state.record import Record, read
from tinamou.system.loop_thread import in_thread

__all__ = [
    "begin",
    "checkpoint",
    "create",
    "diagnose",
    "fork",
    "kill",
    "link",
    "pause",
    "remove",
    "reset",
    "restart",
    "resume",
    "revert",
    "snapshot",
    "snapshot_remove",
    "start",
    "stop",
    "suspend",
]

_KEY_LENGTH = 200


async def begin(
    asked: Asked, verb: str, about: str, task: Task, plain: Callable[[Any], Any] = lambda _: None, wait: float = 0.0
) -> Response:
    """Begin an operation, and answer it: 202 while it runs, 200 when it has ended within what the caller waits for."""
    request = asked.request
    key = request.headers.get("idempotency-key", "")
    if len(key) > _KEY_LENGTH or not key.isprintable():
        raise SpecError("the Idempotency-Key is not understood", fix=f"at most {_KEY_LENGTH} characters that can be printed")
    how = {key: value for key, value in request.query_params.items() if key != "wait"}
    words = json.dumps([request.method, request.url.path, how, asked.given], sort_keys=True, default=str)
    shown, known = asked.service.work.begin(Asking(asked.caller, verb, about, key, words), task, plain)
    wait = wait or getattr(asked.query, "wait", 0.0)
    if wait:
        shown = await asked.service.work.until_ended(shown["id"], wait)
    answer = as_json(shown, request, 202 if shown["state"] == "running" else 200)
    answer.headers["location"] = f"/v1/operations/{shown['id']}"
    if known:
        answer.headers["idempotent-replayed"] = "true"
    return answer


async def _simple(asked: Asked, verb: str, work: Callable[..., Awaitable[Any]], **how: Any) -> Response:
    """An operation on a machine that is there, whose result says nothing."""
    existing(asked.name)

    async def task(_: Progress) -> None:
        await work(asked.name, **how)

    return await begin(asked, verb, asked.name, task)


def _launched(one: Launched) -> dict[str, Any]:
    notes = [{"level": note.level, "text": note.text, "why": note.why.reason} for note in one.notes]
    return {"machine": everything(one.record), "notes": notes, "waits": one.waits or None}


async def create(asked: Asked) -> Response:
    """Make a machine and start it."""
    body = asked.body
    spec = described(body.spec, asked.caller)
    key, name = asked.request.headers.get("idempotency-key", ""), body.spec.get("name", "")
    if not name and key:  # asked again, it must be the same machine
        spec = late.replace(spec, name=_name_for(asked, key, spec))
        asked.caller.need("create", spec.name)

    async def task(progress: Progress) -> Launched:
        record = read(machines.machines_dir() / spec.name)
        if record is not None and key and _left_by_kill(record, spec, asked):
            return await _taken_up(record, body)
        return await cases.launch(spec, wait=body.until_up, timeout=body.timeout, progress=progress)

    return await begin(asked, "create", spec.name, task, _launched)


def _name_for(asked: Asked, key: str, spec: MachineSpec) -> str:
    """The name the same request was given before, or a new one."""
    return asked.service.work.about_of(asked.caller, key) or spec.name


def _left_by_kill(record: Record, spec: MachineSpec, asked: Asked) -> bool:
    """Whether a machine is what an operation with this key had made when the service was killed."""
    return asked.service.work.began_again(asked.caller, asked.request.headers["idempotency-key"], record.created) and (
        record.spec == dump_spec(spec)
    )


async def _taken_up(record: Record, body: Any) -> Launched:
    """The machine as it would be by now: running, its guest waited for no more."""
    if not record.running:
        return await cases.start(record.name, wait=body.until_up, timeout=body.timeout)
    return Launched(record, ReadyReport((), "none"), (), "the service was killed while it started; it runs")


async def start(asked: Asked) -> Response:
    """Start a machine that is stopped."""
    existing(asked.name)
    how = {"wait": asked.body.until_up, "timeout": asked.body.timeout}

    async def task(progress: Progress) -> Launched:
        return await cases.start(asked.name, progress=progress, **how)

    return await begin(asked, "start", asked.name, task, _launched)


async def restart(asked: Asked) -> Response:
    """Shut a machine's guest down and start it again."""
    existing(asked.name)

    async def task(progress: Progress) -> Launched:
        return await cases.restart(asked.name, grace=asked.body.grace, progress=progress)

    return await begin(asked, "restart", asked.name, task, _launched)


async def stop(asked: Asked) -> Response:
    """Shut a machine's guest down; the result says whether it went by itself."""
    existing(asked.name)

    async def task(_: Progress) -> bool:
        return await cases.stop(asked.name, grace=asked.body.grace)

    return await begin(asked, "stop", asked.name, task, lambda orderly: {"orderly": orderly})


async def kill(asked: Asked) -> Response:
    """Cut a machine's power."""
    return await _simple(asked, "kill", cases.kill)


async def reset(asked: Asked) -> Response:
    """Press a machine's reset button."""
    return await _simple(asked, "reset", cases.reset)


async def pause(asked: Asked) -> Response:
    """Freeze a machine's virtual CPUs."""
    return await _simple(asked, "pause", cases.pause)


async def resume(asked: Asked) -> Response:
    """Let a frozen machine run on, or take a suspended one up."""
    return await _simple(asked, "resume", cases.resume)


async def suspend(asked: Asked) -> Response:
    """Save a machine to disk and end it."""
    return await _simple(asked, "suspend", cases.suspend)


async def remove(asked: Asked) -> Response:
    """Remove a machine and its disks."""
    try:
        existing(asked.name)
    except MissingError:
        if not asked.service.work.about_of(asked.caller, asked.request.headers.get("idempotency-key", "")):
            raise  # with that key it was removed before, and is answered again
    except StateError:  # one whose record is damaged
        if not asked.query.force:
            raise

    async def task(_: Progress) -> None:
        await cases.remove([asked.name], force=asked.query.force)

    return await begin(asked, "rm", asked.name, task)


async def fork(asked: Asked) -> Response:
    """Start running copies of a running machine."""
    existing(asked.name)
    body = asked.body
    _own_names(asked, body.names, body.count)

    async def task(progress: Progress) -> Any:
        return await states.fork(asked.name, body.count, names=body.names, progress=progress)

    def said(done: states.Forked) -> dict[str, Any]:
        return {"checkpoint": done.checkpoint.name, "machines": done.names, "notes": done.notes}

    return await begin(asked, "fork", asked.name, task, said)


def _own_names(asked: Asked, names: Sequence[str], count: int) -> None:
    """Whoever may do things with some machines alone names the copies, and by names of theirs. Raises SpecError."""
    problems = [Problem("names", one, "not yours to make") for one in names if not asked.caller.may("fork", one)]
    if len(names) > count:
        problems.append(Problem("names", len(names), f"more names than the {count} copies"))
    if "*" not in asked.caller.machines and len(names) < count:
        problems.append(Problem("names", None, "each copy must be named by who may use some machines alone"))
    if problems:
        raise SpecError("the copies cannot be made", problems=problems)


def _checkpoint(one: Checkpoint) -> dict[str, Any]:
    return {"name": one.name, "kind": one.kind, "why": one.why, "machine": one.machine, "created": one.created}


async def checkpoint(asked: Asked) -> Response:
    """Save the whole state of a running machine, which goes on."""
    existing(asked.name)

    async def task(_: Progress) -> Checkpoint:
        return await states.checkpoint(asked.name, asked.body.name, kind=asked.body.kind)

    return await begin(asked, "checkpoint", asked.name, task, _checkpoint)


def snapshot_plain(shot: Snapshot) -> dict[str, Any]:
    """A snapshot as plain data."""
    return late.asdict(shot)


async def snapshot(asked: Asked) -> Response:
    """Freeze the present state of a machine's disks."""
    record, body = existing(asked.name), asked.body

    async def task(progress: Progress) -> Snapshot:
        try:
            return (await disks.take(record, body.name, note=body.note, quiesce=body.quiesce, progress=progress)).snapshot
        except StateError:
            if (shot := await in_thread(_taken_before_kill, asked, record)) is None:
                raise
            return shot

    return await begin(asked, "snapshot", asked.name, task, snapshot_plain)


def _taken_before_kill(asked: Asked, record: Record) -> Snapshot | None:
    """The snapshot that an operation with this key had taken when the service was killed; None where it had not."""
    key, name = asked.request.headers.get("idempotency-key", ""), asked.body.name
    shots = [shot for shot in load(record.path).snapshots if name and shot.name == name]
    return next((shot for shot in shots if asked.service.work.began_again(asked.caller, key, shot.created)), None)


async def revert(asked: Asked) -> Response:
    """Make a snapshot's state the present one; the machine must be off."""
    record, name = existing(asked.name), asked.request.path_params["snapshot"]

    async def task(progress: Progress) -> None:
        await disks.go_back(record, name, progress=progress)

    return await begin(asked, "revert", asked.name, task)


async def snapshot_remove(asked: Asked) -> Response:
    """Strike a snapshot and merge its files."""
    record, name = existing(asked.name), asked.request.path_params["snapshot"]

    async def task(progress: Progress) -> None:
        await disks.remove(record, [name], progress=progress)

    return await begin(asked, "snapshot rm", asked.name, task)


async def link(asked: Asked) -> Response:
    """Plug a card's virtual cable in or out."""
    existing(asked.name)
    nic, up = asked.request.path_params["nic"], asked.body.up

    async def task(_: Progress) -> None:
        await network.link(asked.name, nic, up=up)

    return await begin(asked, "link", asked.name, task)


async def diagnose(asked: Asked) -> Response:
    """Find out what slows a machine's network down or stops it."""
    existing(asked.name)
    how = {"fix": asked.body.fix, "measure": asked.body.measure}

    async def task(progress: Progress) -> Any:
        return await network.diagnose(asked.name, progress=progress, **how)

    return await begin(asked, "diagnose", asked.name, task, late.asdict)
