"""A sandbox's machine: taken from a pool, or forked; it goes on when the service ends, its line held by the service."""

from __future__ import annotations

import logging

from tinamou.errors import StateError
from tinamou.machine import checkpoints
from tinamou.machine.connected import READY_SECONDS, Connected
from tinamou.machine.forking import fork_many, take_checkpoint
from tinamou.machine.pooled import PoolClient, for_key
from tinamou.machine.warm import key_of, warm
from tinamou.service.agents.e2b.problems import unsupported
from tinamou.service.agents.e2b.templates import Template
from tinamou.snapshots.checkpoint import Checkpoint
from tinamou.state import pools
from tinamou.state.record import change
from tinamou.system.loop_thread import in_thread

__all__ = ["forked", "made", "saved", "stays"]

_log = logging.getLogger(__name__)


async def made(template: Template, name: str, *, network: bool = True) -> Connected:
    """A running machine nobody else has, named so unless it comes from a pool. Raises TinamouError, RefusedError.

    It comes from a pool made for the same request, where there is one. Call `stays` for it once that is written down.
    """
    if not network and not template.image:
        why = f"whether the machines of template {template.name} have a network was decided when they were booted"
        raise unsupported("allow_internet_access=False", why)
    if template.pool:
        return await _taken(template.pool)
    if template.checkpoint:
        [machine] = await forked(checkpoints.find(template.checkpoint), [name])
        return machine
    spec = template.spec(network=network)
    if pools.every() and (pool := for_key(await in_thread(key_of, spec))):
        return await _taken(pool)
    [machine] = await forked(await warm(spec, timeout=READY_SECONDS), [name])
    return machine


async def _taken(pool: str) -> Connected:
    return Connected.of_fork(*await PoolClient(pool).claim())


async def forked(checkpoint: Checkpoint, names: list[str]) -> list[Connected]:
    """Running forks of those names, which do not die with this process. Raises TinamouError."""
    found = await fork_many(checkpoint, len(names), ephemeral=False, dies_with_parent=False, names=names)
    return [Connected.of_fork(one) for one in found]


async def stays(machine: Connected) -> Connected:
    """From now on the machine goes on when this process ends; the line to its guest stays open.

    What must be said of a fork is in the service's log: E2B's answers have no place for it. So has its record.
    """
    await machine.settled_agent()
    for note in machine.record.notes:
        _log.warning("%s", note, extra={"fields": {"machine": machine.name}})
    machine.record = change(machine.record, owner_pid=0, owner_started=0, ephemeral=False)
    await machine.hang_up()
    return machine


async def saved(machine: Connected, name: str) -> Checkpoint:
    """The whole state of a running machine, which goes on. Raises StateError, ControlError, GuestError."""
    if not machine.running:
        raise StateError(f"machine {machine.name} does not run")
    machine.refresh()
    try:
        return await take_checkpoint(machine, name)
    finally:
        await machine.hang_up()
