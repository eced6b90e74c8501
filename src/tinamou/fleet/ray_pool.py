"""Machines that wait over the nodes of a Ray cluster, each for one command: `Forks` of one checkpoint, used once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from tinamou.errors import TimeLimitError
from tinamou.fleet.on_ray import Fork, Forks, Ran, gone, ray_here

__all__ = ["Pool"]

_SECONDS = 120.0
_LOOK = 0.2
"""Seconds after which a thread looks again whether another one has given a machine back."""


class Pool:
    """``size`` copies of a checkpoint that wait; who runs a command has one that nobody had before, and which ends with it.

    Another one takes its place. Threads may share it: as many commands run at once as there are machines. All of
    them are gone when the block ends. Raises LaunchError without ray, or without slots for all.
    """

    def __init__(self, of: str, size: int) -> None:
        self._all = Forks(of, size)
        self._changed = threading.Condition()
        self._free: list[Fork] = []
        self._renewing: dict[Any, Fork] = {}

    def __enter__(self) -> Self:
        self._all.__enter__()
        self._free = self._all.forks
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._all.__exit__(kind, error, trace)
        self._free, self._renewing = [], {}

    @property
    def waiting(self) -> int:
        """How many machines wait now."""
        with self._changed:
            return len(self._free)

    def run(self, command: str | Sequence[str], *, timeout: float = _SECONDS) -> Ran:
        """Run a command in a machine of its own; where its node is lost meanwhile, once more in another.

        Raises LaunchError where no node has room any more, TimeLimitError where none is free for ``timeout`` seconds, and
        what running it raises.
        """
        while True:
            fork = self._taken(timeout)
            actor = self._all.actor(fork.node)
            answer = actor and self._unless_lost(fork, actor.run.remote([fork.name], command, timeout))
            if answer is not None:
                return Ran(fork, *answer[fork.name])

    def _unless_lost(self, fork: Fork, asked: Any) -> dict[str, tuple[int, bytes, bytes]] | None:
        """What it answers, and the machine is made anew; None where its node is gone, whose machines are made elsewhere."""
        ray = ray_here()
        try:
            answer: dict[str, tuple[int, bytes, bytes]] = ray.get(asked)
        except gone():
            self._lost(fork.node)
            return None
        except BaseException:
            self._renew(fork)
            raise
        self._renew(fork)
        return answer

    def _renew(self, fork: Fork) -> None:
        with self._changed:
            if (actor := self._all.actor(fork.node)) is not None:
                self._renewing[actor.renew.remote(fork.name)] = fork

    def _taken(self, timeout: float) -> Fork:
        until = time.monotonic() + timeout
        while True:
            with self._changed:
                if self._free:
                    return self._free.pop(0)
                if not self._renewing:
                    self._changed.wait(_LOOK)
                waited = list(self._renewing)
            if time.monotonic() > until:
                raise TimeLimitError("no machine of the pool is free", why=f"for {timeout:g} s", fix="make it larger")
            if waited:
                self._heard(waited)

    def _heard(self, waited: list[Any]) -> None:
        """Look which of them are made anew."""
        ray = ray_here()
        done, _ = ray.wait(waited, num_returns=1, timeout=_LOOK)
        for one in done:
            with self._changed:
                fork = self._renewing.pop(one, None)
            if fork is None:  # another thread has heard of it
                continue
            try:
                name = ray.get(one)
            except gone():
                self._lost(fork.node)
                continue
            with self._changed:
                self._free.append(self._all.renewed(fork, name))
                self._changed.notify()

    def _lost(self, node: str) -> None:
        """Make the machines of a node that is gone anew on others, once, whoever notices."""
        with self._changed:
            self._free = [one for one in self._free if one.node != node]
            self._renewing = {ref: fork for ref, fork in self._renewing.items() if fork.node != node}
            self._free += self._all.moved_from(node)
            self._changed.notify_all()
