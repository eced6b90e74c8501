"""Who owns a machine that moves: one host, whatever ends either side after whichever step."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tinamou.errors import ControlError, StateError
from tinamou.machine import moving
from tinamou.state import moves
from tinamou.state.record import Record, change, create, read
from tinamou.system.spawn import process_of

TOKEN = "t1"


class Hosts:
    """A machine's records on two hosts, and what is done with them in the order of a move."""

    def __init__(self, folder: Path) -> None:
        self.source, self.target = folder / "source" / "web", folder / "target" / "web"
        self.source.mkdir(parents=True)
        create(Record("web", str(self.source), {"name": "web"}, created=1.0, generation=4))

    def here(self) -> Record:
        return self.read(self.source)

    def there(self) -> Record:
        return self.read(self.target)

    def read(self, path: Path) -> Record:
        found = read(path)
        assert found is not None
        return found

    def arrive(self) -> None:
        self.target.mkdir(parents=True)
        create(Record("web", str(self.target), {}, created=1.0, generation=5, move=moves.arriving("h1", TOKEN), owner_pid=1))

    def steps(self) -> list[Callable[[], object]]:
        return [
            lambda: moves.begin_leaving(self.here(), "h2", TOKEN),
            self.arrive,
            lambda: moves.ready(self.there(), TOKEN),
            lambda: moves.leave(self.here(), TOKEN),
            lambda: moves.take_over(self.there(), TOKEN),
            lambda: moves.confirmed(self.here(), TOKEN),
        ]

    def over(self, record: Record, *, gone: bool) -> None:
        if gone:
            record.file("machine.json").unlink()

    def owners(self) -> list[str]:
        both = {"source": read(self.source), "target": read(self.target)}
        return [name for name, one in both.items() if one is not None and not moves.phase(one)]


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    monkeypatch.setattr(moves, "attended", lambda _: False)
    return Hosts(tmp_path)


@pytest.mark.parametrize("done", range(7))
@pytest.mark.parametrize("first", ["source", "target"])
def test_after_every_interruption_there_is_one_owner(done: int, first: str, both: Hosts) -> None:
    for step in both.steps()[:done]:
        step()
        assert len(both.owners()) <= 1
    for name in (first, "target" if first == "source" else "source"):
        record = read(both.source if name == "source" else both.target)
        if record is not None and moves.phase(record):
            moving.settle(record, both.over)
        assert len(both.owners()) <= 1
    here = both.here()
    assert moves.phase(here) in ("", moves.LEFT)
    if moves.phase(here) == moves.LEFT:  # the record here names the host, which is told
        assert here.move["host"] == "h2"
        moves.take_over(both.there(), TOKEN)
        moves.take_over(both.there(), TOKEN)
        assert both.owners() == ["target"]
        assert both.there().generation == here.generation + 1
    else:
        assert both.owners() == ["source"]
        assert here.move == {}


def test_a_source_that_has_left_can_neither_stay_nor_leave_again(both: Hosts) -> None:
    for step in both.steps()[:4]:
        step()
    for late in (moves.stay, moves.leave):
        with pytest.raises(StateError, match="is not where it was"):
            late(both.here(), TOKEN)
    with pytest.raises(StateError, match="has moved to h2"):
        moves.refuse_elsewhere(both.here(), "started")


def test_a_target_runs_nothing_before_it_is_ready_nor_by_another_move(both: Hosts) -> None:
    for step in both.steps()[:2]:
        step()
    with pytest.raises(StateError, match="it is arriving"):
        moves.take_over(both.there(), TOKEN)
    moves.ready(both.there(), TOKEN)
    with pytest.raises(StateError, match="is not where it was"):
        moves.take_over(both.there(), "another")
    with pytest.raises(StateError, match="it may run there"):
        moves.refuse_elsewhere(both.there(), "started")


def test_what_a_living_process_moves_is_left_alone(both: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "attended", lambda _: True)
    for step in both.steps()[:2]:
        step()
        for path in (both.source, both.target):
            if (record := read(path)) is not None:
                assert moving.settle(record, both.over) == []
    assert [moves.phase(both.here()), moves.phase(both.there())] == [moves.LEAVING, moves.ARRIVING]


def test_a_guest_whose_move_was_cut_short_is_let_run_on_before_it_counts_as_staying(
    both: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    both.steps()[0]()
    own, asked = process_of(os.getpid()), []
    record = change(both.here(), pid=own.pid, started=own.started)

    def silent(_: Record) -> None:
        raise ControlError("QEMU does not answer")

    monkeypatch.setattr(moving, "_run_on", silent)
    assert moving.settle(record, both.over) == []
    assert moves.phase(both.here()) == moves.LEAVING  # the next command tries again
    monkeypatch.setattr(moving, "_run_on", asked.append)
    assert moving.settle(record, both.over) == ["the move of machine web to h2 was cut short; it stays here"]
    assert asked == [record] and moves.phase(both.here()) == ""
