"""Records that are kept by who looks again and again: the same while their file is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinamou.state import kept as kept_module
from tinamou.state import machines
from tinamou.state.kept import Kept
from tinamou.state.record import Record, change, create


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINAMOU_STATE", str(tmp_path))
    return machines.machines_dir()


def made(home: Path, name: str) -> Record:
    (home / name).mkdir(mode=0o711)
    return create(Record(name, str(home / name), {}))


def aged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written just now is not young."""
    monkeypatch.setattr(kept_module, "_YOUNG_NS", -1_000_000_000)


def test_an_unchanged_record_is_the_same_and_a_changed_one_is_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aged(monkeypatch)
    made(home, "b"), made(home, "a")
    kept = Kept()
    first, again = kept.look(), kept.look()
    assert [one.name for one in first] == ["a", "b"]
    assert all(old is new for old, new in zip(first, again, strict=True))
    change(first[0], pid=7)
    third = kept.look()
    assert (third[0].pid, third[1] is first[1]) == (7, True)
    machines.remove(home / "b")
    (home / "a").rename(home / "c")
    assert [one.name for one in kept.look()] == ["c"]
    assert kept.look() == machines.machines()


def test_a_young_record_is_read_again(home: Path) -> None:
    made(home, "a")
    kept = Kept()
    assert kept.look()[0] is not kept.look()[0]


def test_damaged_ones_and_what_others_own_are_left_out(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aged(monkeypatch)
    for name in ("a", "b", "c"):
        made(home, name)
    (home / "a" / "machine.json").write_text("{")
    (home / "c").chmod(0o777)
    (home / "d").mkdir()
    assert [one.name for one in Kept().look()] == ["b"] == [one.name for one in machines.machines()]
    kept = Kept()
    kept.look()
    (home / "b" / "machine.json").chmod(0o666)
    assert kept.look() == []
