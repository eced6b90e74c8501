"""What machines of one host share: one changes it at a time, it is of this boot alone, and believed where it is ours."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from tinamou.errors import StateError
from tinamou.state import ledger, shared


def test_one_at_a_time(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINAMOU_RUN", str(state / "new" / "run"))
    order = []

    def second() -> None:
        with shared.held():
            order.append("second")

    with shared.held():
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert (state / "new/run").stat().st_mode & 0o777 == 0o700
    assert (state / "new/run/tinamou.lock").stat().st_mode & 0o777 == 0o600


def test_of_this_boot_alone(state: Path) -> None:
    shared.write("x.json", {"a": 1})
    assert shared.read("x.json")["a"] == 1 and shared.fault("x.json") == ""
    (state / "x.json").write_text(json.dumps({"boot": "another", "a": 1}))
    assert (shared.read("x.json"), shared.fault("x.json")) == ({}, "")
    assert (shared.read("none.json"), shared.fault("none.json")) == ({}, "")


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', "[" * 100_000])
def test_damage_is_told(state: Path, text: str) -> None:
    (state / "x.json").write_text(text)
    assert shared.read("x.json") == {} and "x.json is damaged and not read" in shared.fault("x.json")


def test_a_folder_others_can_write_to_is_not_trusted(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = state / "run"
    run.mkdir()
    monkeypatch.setenv("TINAMOU_RUN", str(run))
    shared.write("x.json", {"a": 1})
    run.chmod(0o777)
    assert shared.read("x.json") == {} and "x.json is not read: " in shared.fault("x.json")
    with pytest.raises(StateError, match="what machines of this host share cannot be kept"), shared.held():
        pass
    run.chmod(0o755)
    assert shared.read("x.json")["a"] == 1


@pytest.mark.parametrize(
    "damage",
    [{"cpus": {"m": "x"}}, {"cpus": []}, {"pools": {"p": {"claims": 5}}}, {"reports": 7}, {"devices": {"d": {"odd": 1}}}],
)
def test_a_damaged_ledger_is_empty_and_told(damage: dict[str, object]) -> None:
    with ledger.edit() as book:
        book.cpus["m"] = "0-1"
    assert ledger.look().cpus == {"m": "0-1"} and ledger.fault() == ""
    sound = shared.read("tinamou.json")
    shared.write("tinamou.json", {**sound, **damage})
    assert ledger.look() == ledger.Ledger() and "tinamou.json is damaged and not read" in ledger.fault()
