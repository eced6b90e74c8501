"""A host that is left: what goes, what stays and why, and what the command says of it. Real moves: test_move.py."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from tinamou.cli import evacuate as verb
from tinamou.errors import Problem, StateError
from tinamou.fleet import evacuating, hosts
from tinamou.fleet.moving import How, Moved

SPEED = How(limit=1 << 20)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Machines of this host, of which one is off and one cannot go; the names of those that were to move."""
    found: list[str] = []

    async def move(name: str, host: str, how: How | None = None, **_: object) -> Moved:
        found.append(name)
        assert (host, how) == ("h2", SPEED)
        if name == "db":
            problem = Problem("share", None, "its guest has folders of this host open")
            raise StateError("db cannot be moved while it runs", problems=[problem])
        return Moved(name, host, 0.05, 0, 0, 1, 0, 0, 1, 0, 0.0, notes=("it went through ssh",))

    every = [SimpleNamespace(name=name, running=name != "off") for name in ("app", "db", "off", "web")]
    monkeypatch.setattr(hosts, "find", lambda name: name)
    monkeypatch.setattr(evacuating.machines, "machines", lambda: every)
    monkeypatch.setattr(evacuating, "move", move)
    return found


def test_one_that_cannot_go_stays_and_the_others_go(asked: list[str]) -> None:
    done = asyncio.run(evacuating.evacuate("h2", SPEED))
    assert asked == ["app", "db", "web"]
    assert [one.name for one in done.moved] == ["app", "web"]
    assert list(done.stay) == ["db"]
    assert "folders of this host" in done.stay["db"]


def test_the_command_says_what_stays_and_its_status_too(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.command("h2", limit="1M", json=True) == 118
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert ([one["name"] for one in told["moved"]], list(told["stay"])) == (["app", "web"], ["db"])
    assert "db stays: db cannot be moved while it runs" in said.err
    assert "app: it went through ssh" in said.err
