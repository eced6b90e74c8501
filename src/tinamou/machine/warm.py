"""Booted once, forked ever after: checkpoints kept for a request, made on first use and again when it no longer fits."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

from tinamou import late
from tinamou.blueprint.stored import plain
from tinamou.errors import Problem, StateError
from tinamou.images.progress import Progress, silent
from tinamou.machine.booting import started, until_up
from tinamou.machine.connected import Connected
from tinamou.machine.forking import take_checkpoint
from tinamou.machine.gather import resolve_image
from tinamou.machine.planning import plan_only
from tinamou.probe.qemu import find_binary
from tinamou.snapshots.checkpoint import Checkpoint, check, checkpoints_dir, identity_of, read
from tinamou.snapshots.resting import discard
from tinamou.spec import MachineSpec, dump_spec, load_spec
from tinamou.system.lock import exclusive
from tinamou.system.loop_thread import in_thread

__all__ = ["booted", "copied", "key_of", "warm"]

_SETTLED = """
command -v systemctl >/dev/null && timeout 120 systemctl is-system-running --wait >/dev/null 2>&1
ls /sys/class/net | grep -qv "^lo$" || exit 0
tries=0
until ip -4 addr show scope global 2>/dev/null | grep -q inet || [ $tries -gt 50 ]; do tries=$((tries + 1)); sleep 0.1; done
"""
"""Waits until a guest has finished booting and has an address on its network, for at most 5 s; not without a card."""

KEPT = 8
"""Warm checkpoints kept at most; the oldest go first."""


async def warm(spec: MachineSpec, *, timeout: float, progress: Progress = silent) -> Checkpoint:
    """A checkpoint of a freshly booted machine as the spec describes it. Raises what starting and saving it raise."""
    name = await asyncio.to_thread(key_of, spec, progress)
    found = _usable(name)
    return found or await _made(spec, name, timeout, progress)


def key_of(spec: MachineSpec, progress: Progress = silent) -> str:
    """The name of its warm checkpoint: the same for the same request, image and QEMU."""
    image = resolve_image(spec, build=True, progress=progress)
    request = {key: value for key, value in dump_spec(spec).items() if key != "name"}
    binary = identity_of(find_binary(image.arch))
    what = json.dumps([request, late.asdict(image), late.astuple(binary)], default=str, sort_keys=True)
    return f"warm-{image.name.replace(':', '-').replace('/', '-')[:20]}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"


def _usable(name: str) -> Checkpoint | None:
    """The checkpoint if it is there and whole; what is not whole is removed."""
    directory = checkpoints_dir() / name
    try:
        found = read(directory)
        if found is not None:
            check(found)
    except StateError:
        discard(directory)
        return None
    return found


async def _made(spec: MachineSpec, name: str, timeout: float, progress: Progress) -> Checkpoint:
    turn = exclusive(checkpoints_dir() / f".{name}.lock")
    try:
        await in_thread(turn.__enter__)
        if found := _usable(name):
            return found
        progress("booting a machine to fork from, once", None)
        _make_room()
        async with booted(spec, timeout=timeout, progress=progress) as machine:
            return await take_checkpoint(machine, name, kind="instant")
    finally:
        turn.__exit__(None, None, None)


@contextlib.asynccontextmanager
async def booted(spec: MachineSpec, *, timeout: float, progress: Progress = silent) -> AsyncIterator[Connected]:
    """A forkable machine of that description that has finished booting; gone when the block ends. Raises as `copied` too."""
    nameless = await asyncio.to_thread(copied, spec)
    async with started(nameless, timeout=timeout, progress=progress) as machine:
        await until_up(machine)
        await machine.run(_SETTLED, check=False, timeout=timeout)
        yield machine


def copied(spec: MachineSpec) -> MachineSpec:
    """The machine that is booted for others to be copies of it.

    Raises SpecError, PlanError and StateError naming what of the description no copy would have.
    """
    forkable = late.replace(spec.memory, forkable=True)
    nameless = load_spec(dump_spec(late.replace(spec, name="", memory=forkable)))
    own = {f"net[{number}].mac": str(one.mac) for number, one in enumerate(spec.net) if one.mac is not None}
    own |= {"seed.hostname": spec.seed.hostname} if spec.seed.hostname else {}
    problems = [Problem(field, value, "every copy has one of its own", "leave it out") for field, value in own.items()]
    beside = [one.split(" ", 1) for one in reversed(plain(plan_only(nameless, throwaway=True))["outside"])]
    lacking = {
        field: f"a copy would lack what it has beside QEMU {what}" for field, what in beside if field != "confinement"
    }
    problems += [Problem(field, None, reason, "leave it out") for field, reason in lacking.items()]
    if problems:
        raise StateError(
            "a copy of a booted machine would not be as described", problems=problems, fix="start it without warm"
        )
    return nameless


def _make_room() -> None:
    from tinamou.machine.checkpoints import children, every

    old = [one for one in every() if one.name.startswith("warm-") and not children(one)]
    for one in old[: max(0, len(old) - KEPT + 1)]:
        discard(Path(one.directory))
