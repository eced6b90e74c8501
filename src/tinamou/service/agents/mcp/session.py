"""The machines of one session: made by it and ended with it, and no other is touched."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Self

from tinamou import aio
from tinamou.errors import Problem, SpecError, StateError
from tinamou.images.progress import Progress, silent
from tinamou.late import replace
from tinamou.machine.facade import AsyncMachine
from tinamou.operations.machines import remove
from tinamou.service.agents.mcp.outputs import Outputs
from tinamou.service.descriptions import reaching
from tinamou.snapshots.checkpoint import Checkpoint
from tinamou.spec import MachineSpec, load_spec
from tinamou.state import machines

__all__ = ["Session"]

_MOST = 64
"""Machines one session may have at a time, where nobody says otherwise."""


class Session:
    """What tools work on. With ``all_machines`` every machine of this user can be used and discarded, not only its own.
    With ``host_access`` its machines may be given files, devices, ports and the network of the host.

    ``async with`` ends its machines, but those that were kept.
    """

    def __init__(self, *, all_machines: bool = False, host_access: bool = False, most: int = _MOST) -> None:
        self.all_machines: bool = all_machines
        self.host_access: bool = host_access
        self.most: int = most
        self.outputs: Outputs = Outputs()
        self._own: dict[str, AsyncMachine] = {}
        self._checkpoints: dict[str, Checkpoint] = {}
        self._coming = 0

    @property
    def own(self) -> list[str]:
        """The names of its own machines, oldest first."""
        return list(self._own)

    def names(self) -> list[str]:
        """Those of the machines it may use."""
        others = [one.name for one in machines.machines() if one.name not in self._own] if self.all_machines else []
        return [*self._own, *others]

    def find(self, name: str) -> AsyncMachine:
        """A machine by its name. Raises StateError for one that is not the session's, unless it was given all."""
        if name in self._own:
            return self._own[name]
        if self.all_machines:
            return aio.open(name)
        have = f"it has {', '.join(self._own)}" if self._own else "it has none"
        raise StateError(
            f"this session has no machine named {name}",
            why=f"a session uses the machines that it made alone: {have}",
            fix="make one with machine_create; machines of others only when tinamou mcp was started with --all-machines",
        )

    async def create(
        self, image: str, settings: dict[str, Any], *, checkpoint: str = "", keep: bool = False, progress: Progress = silent
    ) -> AsyncMachine:
        """A running machine, booted from an image or forked from a checkpoint. Raises TinamouError."""
        with self._room(1):
            if checkpoint:
                [machine] = await aio.fork(self._checkpoint(checkpoint))
            else:
                spec = load_spec({"image": image, **settings})
                machine = aio.Machine.of(spec if self.host_access else _apart(spec), progress=progress)
                await machine.start()
            return await self._taken(machine, keep=keep)

    async def fork(self, name: str, count: int) -> list[AsyncMachine]:
        """Running copies of one of its machines. Raises TinamouError."""
        with self._room(count):
            return [await self._taken(one) for one in await self.find(name).fork(count)]

    async def checkpoint(self, name: str, called: str, *, keep: bool) -> Checkpoint:
        """The state of a machine, which goes on; unless kept it is gone with the session. Raises TinamouError."""
        taken = await self.find(name).checkpoint(called, ephemeral=not keep)
        self._checkpoints[taken.name] = taken
        return taken

    def _checkpoint(self, name: str) -> Checkpoint | str:
        if name in self._checkpoints or self.all_machines:
            return self._checkpoints.get(name, name)
        have = ", ".join(self._checkpoints) or "none"
        raise StateError(
            f"this session has no checkpoint {name}", why=f"it took {have}", fix="take one with machine_checkpoint"
        )

    async def discard(self, name: str) -> None:
        """End a machine and remove it with its disks. Raises StateError."""
        machine = self.find(name)
        self._own.pop(name, None)
        if machine.record.ephemeral:
            await machine.kill()
        else:
            await remove([name], force=True)

    async def revert(self, name: str, snapshot: str) -> None:
        """Make a snapshot's state the present one of a machine's disks; its power is cut, and it boots again.

        A throw-away machine would be gone with its power. Raises TinamouError.
        """
        machine = self.find(name)
        if machine.record.ephemeral:
            raise StateError(
                f"{name} is thrown away when its power is cut, and cannot go back to a snapshot",
                fix="keep it first with machine_keep; or take a machine_checkpoint, and machine_create copies of that",
            )
        have = [one.name for one in await machine.snapshots.list()]
        if snapshot not in have:
            raise StateError(f"{name} has no snapshot {snapshot}", why=f"it has {', '.join(have) or 'none'}")
        await machine.kill()
        try:
            await machine.snapshots.revert(snapshot)
        finally:
            await machine.start()

    async def keep(self, name: str) -> None:
        """Let one of its machines go on when the session ends. Raises StateError."""
        machine = self.find(name)
        if name in self._own and machine.record.ephemeral:
            self._own[name] = await self._kept(machine)

    async def _taken(self, machine: AsyncMachine, *, keep: bool = False) -> AsyncMachine:
        self._own[machine.name] = await self._kept(machine) if keep else machine
        return self._own[machine.name]

    async def _kept(self, machine: AsyncMachine) -> AsyncMachine:
        name = machine.name
        await machine.release(stays=True)
        return aio.open(name)

    @contextlib.contextmanager
    def _room(self, count: int) -> Iterator[None]:
        """So many more machines are on their way. Raises StateError where there is no room for them."""
        self._own = {name: one for name, one in self._own.items() if _there(one)}
        if len(self._own) + self._coming + count > self.most:
            raise StateError(
                f"this session would have more than {self.most} machines",
                why=f"it has {len(self._own)}, and {self._coming} are being made",
                fix="discard some with machine_discard",
            )
        self._coming += count
        try:
            yield
        finally:
            self._coming -= count

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        ended = [one.kill() for one in self._own.values() if _there(one) and one.record.ephemeral]
        self._own.clear()
        await asyncio.gather(*ended, return_exceptions=True)


def _apart(spec: MachineSpec) -> MachineSpec:
    """The description, whose machine reaches nothing of the host; its network is by passt. Raises SpecError."""
    problems = reaching(spec, "leave it out, or start tinamou mcp with --host-access")
    why = "QEMU's own TCP/IP leads to what listens on the loopback of the host"
    fix = "use passt, or isolated; or start tinamou mcp with --host-access"
    for number, one in enumerate(spec.net):
        if one.type == "user" and not one.isolated:
            problems.append(Problem(f"net[{number}].type", "user", why, fix))
    if problems:
        raise SpecError("this session may not have that machine made", problems=problems)
    return replace(
        spec, net=tuple(replace(one, type="passt") if one.type == "auto" and not one.isolated else one for one in spec.net)
    )


def _there(machine: AsyncMachine) -> bool:
    try:
        return machine.record.running or not machine.record.ephemeral
    except StateError:
        return False
