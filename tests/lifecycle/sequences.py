"""One machine driven through random verbs beside a model of what must be so; after each, everything that knows it agrees."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from typed import call, tinamou

from tinamou.prepare.journal import Journal
from tinamou.snapshots.history import load as history_of
from tinamou.state.record import read
from tinamou.system.paths import state_dir

NAME = "m"
DESCRIPTION = ("--disk", "size=8M", "--net", "user", "--set", "memory.size=192M")


@dataclass
class Model:
    """What must be so: the machine's state, its disks and cards beside the first, its snapshots."""

    state: str = "gone"
    disks: list[str] = field(default_factory=list)
    nics: list[str] = field(default_factory=list)
    snapshots: list[str] = field(default_factory=list)
    plugged: set[str] = field(default_factory=set)
    made: int = 0
    options: tuple[str, ...] = ()


def processes() -> list[int]:
    """QEMUs that were handed files of the machine."""
    token, found = f"opaque={state_dir()}/machines/{NAME}/".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                found += [int(entry.name)] if token in (entry / "cmdline").read_bytes() else []
            except OSError:
                continue
    return found


def agree(model: Model, said: str) -> None:
    """``ls`` and ``show``, the record, the journal, the processes and the history say what the model says."""
    rows = {row["name"]: row for row in json.loads(tinamou("ls", "--json"))}
    record = read(state_dir() / "machines" / NAME)
    if model.state == "gone":
        assert NAME not in rows and record is None and processes() == [], said
        return
    assert record is not None and rows[NAME]["state"] == model.state, f"{said}: {rows[NAME]['state']}, not {model.state}"
    shown = json.loads(tinamou("show", NAME, "--json"))
    alive = model.state in ("running", "paused")
    assert shown["state"] == model.state and (shown["pid"] is not None) == alive, said
    assert processes() == ([record.pid] if alive else []), said
    assert record.running == alive and not record.owner_pid, said
    assert alive or not Journal(record.path).open_entries(), said
    assert bool(list(record.path.glob("*.sock"))) == alive, said
    spec = shown["spec"]
    assert len(spec.get("disk", [])) == 1 + len(model.disks), said
    cards = [
        one for one in spec.get("net", [{}]) if one != "none" and (not isinstance(one, dict) or one.get("type") != "none")
    ]
    assert len(cards) == 1 + len(model.nics), f"{said}: {cards}"
    history = history_of(record.path)
    assert [one.name for one in history.snapshots] == model.snapshots and history.intent is None, said
    assert not list(record.path.glob("*.part")) and not list(record.path.glob(".*.part")), said


def step(model: Model, dice: random.Random, done: list[str], only: frozenset[str] = frozenset()) -> None:
    """One verb that can be done now, chosen by the dice among ``only`` those where any are named; then all must agree."""
    name, do = dice.choice([(name, do) for name, do in verbs(model, dice) if not only or name in only])
    done.append(name)
    do()
    agree(model, " › ".join(done))


def verbs(model: Model, dice: random.Random) -> Iterator[tuple[str, Callable[[], None]]]:
    """The verbs that can be done now, each changing the model as it must."""
    yield from ((word, lambda word=word: _life(model, word)) for word in _ALLOWED[model.state])  # type: ignore[misc]
    if model.state in ("running", "stopped"):
        yield "disk add", lambda: _add(model, "disk", "size=8M", model.disks)
        yield "net add", lambda: _add(model, "net", "user", model.nics)
        yield "snapshot create", lambda: _snapshot(model)
        for kind, there in (("disk", model.disks), ("net", model.nics)):
            removable = [one for one in there if model.state == "stopped" or one in model.plugged]
            if removable:
                one = dice.choice(removable)
                yield f"{kind} rm", lambda kind=kind, one=one, there=there: _remove(model, kind, one, there)  # type: ignore[misc]
        if model.snapshots:
            yield "snapshot rm", lambda: _forget(model, dice.choice(model.snapshots))


_ALLOWED = {
    "gone": ("run",),
    "running": ("stop", "kill", "pause", "reset", "suspend", "restart", "rm -f", "exec"),
    "paused": ("resume", "kill", "stop"),
    "stopped": ("start", "rm", "start again"),
    "suspended": ("resume", "kill"),
}
_AFTER = {"run": "running", "start": "running", "restart": "running", "resume": "running", "stop": "stopped"}
_AFTER |= {"kill": "stopped", "pause": "paused", "suspend": "suspended", "rm": "gone", "rm -f": "gone"}


def _life(model: Model, word: str) -> None:
    if word == "run":
        tinamou("run", "-d", "--name", NAME, *model.options, *DESCRIPTION)
        model.disks, model.nics, model.snapshots, model.plugged = [], [], [], set()
    elif word == "exec":
        assert tinamou("exec", NAME, "--", "hostname").strip() == NAME
        return
    elif word == "start again":
        assert call("pause", NAME).returncode == 118
        return
    else:
        tinamou(*word.split(), *(model.options if word == "start" else ()), NAME)
    model.state = _AFTER.get(word, model.state)


def _add(model: Model, kind: str, what: str, there: list[str]) -> None:
    if len(model.disks) + len(model.nics) > 2:
        return
    name = tinamou(kind, "add", NAME, what).split(",")[0].strip()
    there.append(name)
    if model.state == "running":
        model.plugged.add(name)


def _remove(model: Model, kind: str, one: str, there: list[str]) -> None:
    tinamou(kind, "rm", NAME, one)
    there.remove(one)
    model.plugged.discard(one)


def _snapshot(model: Model) -> None:
    model.made += 1
    tinamou("snapshot", "create", NAME, f"s{model.made}")
    model.snapshots.append(f"s{model.made}")


def _forget(model: Model, name: str) -> None:
    tinamou("snapshot", "rm", NAME, name)
    model.snapshots.remove(name)


def drive(seed: str, steps: int) -> list[str]:
    """A sequence of so many verbs; their names. Fails at the first after which anybody disagrees."""
    dice, model, done = random.Random(seed), Model(), list[str]()
    for _ in range(steps):
        step(model, dice, done)
    if model.state != "gone":
        tinamou("rm", "-f", NAME)
        model.state = "gone"
        agree(model, f"seed {seed}: {' › '.join(done)} › rm -f")
    return done
