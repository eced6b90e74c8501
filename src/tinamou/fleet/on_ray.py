"""Throw-away machines on the nodes of a Ray cluster (``tinamou[ray]``): forks of one checkpoint, as many as were asked for.

Each fork has one of the custom resource ``vm_slots`` (one for each machine a node may have), reserved by a placement group:
Ray says on which node, and other programs do not get it. Each node has one actor. The checkpoint goes to a node once, by its
content. A node's forks are its actor's: they end with it, whatever ends it, and are made anew on the others. Machines that
are kept are never an actor's. Ray fences nothing, so nothing that must exist only once belongs here.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tinamou.errors import LaunchError, StateError
from tinamou.late import dataclass
from tinamou.machine import checkpoints
from tinamou.machine.facade import AsyncMachine
from tinamou.machine.known import async_fork
from tinamou.operations import states
from tinamou.system.loop_thread import wait_for

__all__ = ["SLOTS", "Fork", "Forks", "Ran", "gone", "ray_here"]

SLOTS = "vm_slots"
_PIECE = 32 << 20
_SECONDS = 120.0
_ENDING_SECONDS = 600.0
_AT_ONCE = 32
"""What an actor is asked at once by threads of a program; more wait."""
_PLACING_SECONDS = 60.0
"""How long slots that others have are waited for; Ray takes half a minute to notice a dead node."""
_FIX = f"ray start --resources='{{\"{SLOTS}\": 50}}' on more nodes"


@dataclass(frozen=True)
class Fork:
    """One machine: the id of the node it is on, and its name there."""

    node: str
    name: str


@dataclass(frozen=True)
class Ran:
    """What a command did in a fork."""

    fork: Fork
    status: int
    stdout: bytes
    stderr: bytes


class Forks:
    """``count`` running copies of a checkpoint over the nodes of the Ray cluster this program is connected to.

    Each has a slot of its node's ``vm_slots`` to itself. All of them are gone when the block ends. ``moved`` is how many
    bytes of the checkpoint went to nodes that did not have it. Raises LaunchError without ray, or without slots for all.
    """

    def __init__(self, of: str, count: int) -> None:
        self.moved: int = 0
        self.lost: list[Fork] = []
        self._of = of
        self._count = count
        self._actors: dict[str, Any] = {}
        self._group: Any = None
        self._forks: dict[str, list[str]] = {}
        self._pieces: list[Any] = []
        self._sum: str = ""

    def __enter__(self) -> Self:
        ray = ray_here()
        self._refuse_room(ray)
        self._group = ray.util.placement_group([{SLOTS: 1}] * self._count, strategy="SPREAD")
        try:
            self._placed(ray)
            self._pack(ray)
            self._more(self._count)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        ray = ray_here()
        ending = [actor.end.remote() for actor in self._actors.values()]
        ray.wait(ending, num_returns=len(ending), timeout=_ENDING_SECONDS) if ending else None
        for actor in self._actors.values():
            ray.kill(actor)
        ray.util.remove_placement_group(self._group)
        self._actors, self._forks, self._pieces = {}, {}, []

    @property
    def forks(self) -> list[Fork]:
        """The machines there are now."""
        return [Fork(node, name) for node, names in self._forks.items() for name in names]

    def run(self, command: str | Sequence[str], *, timeout: float = _SECONDS) -> list[Ran]:
        """Run a command in each; those of a node that was lost are made anew elsewhere, and run it there.

        Raises LaunchError where no node has room for them any more.
        """
        todo, done = {node: list(names) for node, names in self._forks.items()}, []
        while todo:
            said = self._each({node: ("run", (names, command, timeout)) for node, names in todo.items()})
            done += [Ran(Fork(node, name), *ran) for node, answers in said.items() for name, ran in answers.items()]
            lost = sum(len(names) for node, names in todo.items() if node not in said)
            todo = self._more(lost)
        return done

    def _each(self, calls: dict[str, tuple[str, tuple[Any, ...]]]) -> dict[str, Any]:
        """Call each node's actor at once; what those say that are alive. The others are forgotten, with their forks."""
        ray = ray_here()
        asked = {node: getattr(self._actors[node], what).remote(*given) for node, (what, given) in calls.items()}
        said = {}
        for node, answer in asked.items():
            try:
                said[node] = ray.get(answer)
            except gone():
                self._forget(node)
        return said

    def actor(self, node: str) -> Any:
        """Who has the machines of a node; None for one that is gone."""
        return self._actors.get(node)

    def renewed(self, fork: Fork, name: str) -> Fork:
        """The actor has put another machine in that one's place."""
        names = self._forks[fork.node]
        names[names.index(fork.name)] = name
        return Fork(fork.node, name)

    def moved_from(self, node: str) -> list[Fork]:
        """What was made elsewhere for a node that is gone; nothing where that was done. Raises LaunchError."""
        if node not in self._actors:
            return []
        made = self._more(self._forget(node))
        return [Fork(there, name) for there, names in made.items() for name in names]

    def _forget(self, node: str) -> int:
        """A node is gone, or its actor; how many forks with it."""
        lost = [Fork(node, name) for name in self._forks.pop(node, [])]
        self.lost += lost
        self._actors.pop(node, None)
        return len(lost)

    def _more(self, count: int) -> dict[str, list[str]]:
        """So many forks more, by node: where Ray has their slots, also those of nodes that were lost. Raises LaunchError."""
        ray, made = ray_here(), dict[str, list[str]]()
        while count:
            placed = self._placed(ray)
            shares = {node: slots - len(self._forks.get(node, ())) for node, slots in placed.items()}
            shares = {node: share for node, share in shares.items() if share > 0}
            for node in shares:
                if node not in self._actors:
                    self._actors[node] = self._actor(node)
            for node, names in self._each({node: ("fork", (share,)) for node, share in shares.items()}).items():
                self._forks.setdefault(node, []).extend(names)
                made.setdefault(node, []).extend(names)
                count -= len(names)
        return made

    def _refuse_room(self, ray: Any) -> None:
        slots = {one["NodeID"]: int(one["Resources"].get(SLOTS, 0)) for one in ray.nodes() if one["Alive"]}
        if self._count > sum(slots.values()):
            raise LaunchError(f"{self._count} machines have no {SLOTS} in the cluster", why=f"there are {slots}", fix=_FIX)

    def _placed(self, ray: Any) -> dict[str, int]:
        """How many slots are reserved on each node, once all are, on nodes that are alive. Raises LaunchError."""
        until = time.monotonic() + _PLACING_SECONDS
        while True:
            told = ray.util.placement_group_table(self._group)
            alive = {one["NodeID"] for one in ray.nodes() if one["Alive"]}
            nodes = Counter(told["bundles_to_node_id"].values())
            if told["state"] == "CREATED" and set(nodes) <= alive:
                return dict(nodes)
            if time.monotonic() > until:
                why = "other programs have them, or the nodes that had them are gone"
                raise LaunchError(f"{self._count} {SLOTS} are not free within {_PLACING_SECONDS:g} s", why=why, fix=_FIX)
            time.sleep(0.1)

    def _pack(self, ray: Any) -> None:
        digest = hashlib.sha256()
        with tempfile.TemporaryDirectory(prefix="ray-") as folder:
            file = Path(folder) / "checkpoint"
            wait_for(states.export(self._of, file))
            with file.open("rb") as packed:
                while piece := packed.read(_PIECE):
                    digest.update(piece)
                    self._pieces.append(ray.put(piece))
        self._sum = digest.hexdigest()

    def _actor(self, node: str) -> Any:
        ray = ray_here()
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        actor = ray.remote(_Node).options(scheduling_strategy=here, num_cpus=0, max_concurrency=_AT_ONCE).remote(self._sum)
        try:
            if not ray.get(actor.has.remote()):
                self.moved += ray.get(actor.take.remote(self._pieces))
        except gone():
            pass  # whoever asks it next is told
        return actor


class _Node:
    """What an actor does on its node: it owns the forks there."""

    def __init__(self, summed: str) -> None:
        self._checkpoint = f"ray-{summed[:24]}"
        self._base: AsyncMachine | None = None
        self._forks: dict[str, AsyncMachine] = {}

    def has(self) -> bool:
        """Whether the checkpoint is here, from an earlier time."""
        return any(one.name == self._checkpoint for one in checkpoints.every())

    def take(self, pieces: list[Any]) -> int:
        """Take it in; bytes of it."""
        ray, size = ray_here(), 0
        with tempfile.TemporaryDirectory(prefix="ray-") as folder:
            file = Path(folder) / "checkpoint"
            with file.open("wb") as packed:
                for piece in pieces:
                    size += packed.write(ray.get(piece))
            taken = wait_for(states.take_in(file, self._checkpoint))
        if taken.problems:
            raise StateError("the checkpoint cannot be loaded on this node", why="; ".join(taken.problems))
        return size

    def fork(self, count: int) -> list[str]:
        """So many more; their names."""
        return wait_for(self._forked(count))

    async def _forked(self, count: int) -> list[str]:
        if self._base is None:
            [self._base] = await async_fork(self._checkpoint)
        made = await self._base.fork(count)
        self._forks |= {one.name: one for one in made}
        return [one.name for one in made]

    def renew(self, name: str) -> str:
        """Put another machine in that one's place; its name."""
        return wait_for(self._renewed(name))

    async def _renewed(self, name: str) -> str:
        await self._forks.pop(name).kill()
        [made] = await self._forked(1)
        return made

    def run(self, names: list[str], command: Any, timeout: float) -> dict[str, tuple[int, bytes, bytes]]:
        """Run a command in these at once: status, output and errors of each."""
        return wait_for(self._ran(names, command, timeout))

    async def _ran(self, names: list[str], command: Any, timeout: float) -> dict[str, tuple[int, bytes, bytes]]:
        room = asyncio.Semaphore(4 * (os.cpu_count() or 1))

        async def one(name: str) -> tuple[int, bytes, bytes]:
            async with room:
                done = await self._forks[name].run(command, timeout=timeout, check=False)
            return done.status, done.stdout, done.stderr

        return dict(zip(names, await asyncio.gather(*(one(name) for name in names)), strict=True))

    def end(self) -> None:
        """End all of them."""
        wait_for(self._ended())

    async def _ended(self) -> None:
        machines = [*self._forks.values(), *([self._base] if self._base else [])]
        self._forks, self._base = {}, None
        await asyncio.gather(*(one.kill() for one in machines))


def ray_here() -> Any:
    """The library. Raises LaunchError where there is none."""
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise LaunchError("there is no ray here", why=str(error), fix="pip install 'tinamou[ray]'") from error
    return ray


def gone() -> tuple[type[Exception], ...]:
    """What Ray raises for an actor that ended, or whose node did."""
    errors = ray_here().exceptions
    return errors.RayActorError, errors.ActorUnschedulableError
