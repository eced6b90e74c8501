"""How a move sends a guest's memory: for how long it may stand still, when it is stopped, when it is slowed down."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tinamou.control import Event
from tinamou.snapshots import outgoing


class Said:
    """Stands for a session: what was said, in order. The memory goes at the first look, and all of it at the second."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []
        self._looks = iter(["pre-switchover"])

    @contextlib.contextmanager
    def listen(self, *_: str) -> Iterator[Said]:
        yield self

    async def next(self, *_: float) -> Event:
        return Event("STOP", {}, 1.0)

    async def execute(self, command: str, arguments: Any = None, **more: Any) -> Any:
        self.said.append((command, {**(arguments or {}), **more}))
        if command == "query-migrate":
            return {"status": next(self._looks, "completed"), "ram": {"dirty-sync-count": 1}}
        return {}

    async def execute_with_fd(self, command: str, *_: Any, **more: Any) -> Any:
        return await self.execute(command, **more)


def sent(*, slow: bool = False, still: bool = False) -> list[tuple[str, dict[str, Any]]]:
    session, (near, far) = Said(), socket.socketpair()
    with near, far:
        how: dict[str, Any] = {"key": "", "limit": 0, "downtime": 300, "slow": slow, "still": still}
        asyncio.run(outgoing.send(session, near, (), **how, progress=lambda *_: None))  # type: ignore[arg-type]
    return session.said


def capabilities(said: list[tuple[str, dict[str, Any]]]) -> dict[str, bool]:
    [asked] = [more["capabilities"] for command, more in said if command == "migrate-set-capabilities"]
    return {one["capability"]: one["state"] for one in asked}


@pytest.mark.parametrize("slow", [False, True])
def test_a_guest_is_slowed_down_where_that_is_asked_for(*, slow: bool) -> None:
    assert capabilities(sent(slow=slow))["auto-converge"] is slow


def test_a_guest_whose_writes_would_be_lost_stands_still_first() -> None:
    commands = [command for command, _ in sent(still=True)]
    assert commands.index("stop") < commands.index("migrate")
    assert "stop" not in [command for command, _ in sent()]


@pytest.mark.parametrize("downtime", [1, 300, 60_000])
def test_what_is_left_over_may_grow_from_pass_to_pass(downtime: int) -> None:
    parts = [outgoing._part(downtime, rounds) for rounds in range(20)]
    assert parts == sorted(parts)
    assert parts[-1] == downtime
    assert 1 <= parts[0] <= max(1, downtime // 20)
