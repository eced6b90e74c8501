"""A pool over nodes: what a thread gets when a node is lost under it, or nothing is free. Ray is a stand-in."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tinamou.errors import TimeLimitError
from tinamou.fleet import on_ray, ray_pool
from tinamou.fleet.on_ray import Fork
from tinamou.fleet.ray_pool import Pool


class LostError(Exception):
    """The actor is gone."""


class Node:
    """An actor: its calls are what is done when their answers are asked for. One that is ``gone`` answers nothing."""

    def __init__(self, *, gone: bool = False) -> None:
        self.gone, self.made = gone, 0
        self.run = SimpleNamespace(remote=lambda names, *_: self._later(lambda: {names[0]: (0, b"done", b"")}))
        self.renew = SimpleNamespace(remote=lambda name: self._later(lambda: self._next(name)))

    def _next(self, name: str) -> str:
        self.made += 1
        return f"{name}+{self.made}"

    def _later(self, work: Callable[[], Any]) -> Callable[[], Any]:
        def done() -> Any:
            if self.gone:
                raise LostError
            return work()

        return done


class All:
    """Stands for the forks over two nodes, the first of which may be gone."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes
        self.forks = [Fork(node, f"{node}1") for node in nodes]

    def actor(self, node: str) -> Node | None:
        return self.nodes.get(node)

    def renewed(self, fork: Fork, name: str) -> Fork:
        return Fork(fork.node, name)

    def moved_from(self, node: str) -> list[Fork]:
        return [Fork("b", "b2")] if self.nodes.pop(node, None) else []


def pool_of(monkeypatch: pytest.MonkeyPatch, nodes: dict[str, Node]) -> Pool:
    errors = SimpleNamespace(RayActorError=LostError, ActorUnschedulableError=LostError)
    wait = lambda waited, **_: (waited[:1], waited[1:])  # noqa: E731
    fake = SimpleNamespace(exceptions=errors, get=lambda answer: answer(), wait=wait)
    for module in (on_ray, ray_pool):
        monkeypatch.setattr(module, "ray_here", lambda: fake)
    pool = Pool("warm", len(nodes))
    pool._all = All(nodes)  # type: ignore[assignment]
    pool._free = list(pool._all.forks)
    return pool


def test_each_command_has_a_machine_nobody_had(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(monkeypatch, {"a": Node()})
    assert [pool.run("work").fork.name for _ in range(3)] == ["a1", "a1+1", "a1+1+2"]


def test_a_command_whose_node_is_lost_runs_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {"a": Node(gone=True), "b": Node()}
    pool = pool_of(monkeypatch, nodes)
    ran = pool.run("work")
    assert (ran.fork, ran.stdout) == (Fork("b", "b1"), b"done")
    assert list(nodes) == ["b"]
    assert pool.waiting == 1  # what was made in the lost one's place


def test_a_node_that_is_lost_while_it_renews_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {"a": Node(), "b": Node()}
    pool = pool_of(monkeypatch, nodes)
    assert pool.run("work").fork == Fork("a", "a1")
    nodes["a"].gone = True
    assert pool.run("work").fork == Fork("b", "b1")
    assert pool.run("work").fork == Fork("b", "b2")


def test_who_waits_in_vain_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(monkeypatch, {"a": Node()})
    pool._free = []
    with pytest.raises(TimeLimitError, match="no machine of the pool is free"):
        pool.run("work", timeout=0.0)
