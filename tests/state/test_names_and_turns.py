"""Names of machines: who has one, who makes or ends it at a time, and what is left of a making that failed."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.state import ledger, machines
from tinamou.state.machines import held, making
from tinamou.state.record import Record, create, locked
from tinamou.system.spawn import process_of


def made(name: str, **fields: object) -> Record:
    with making(name) as folder:
        return create(Record(name=name, directory=str(folder), spec={"name": name}, **fields))  # type: ignore[arg-type]


def test_a_making_that_fails_leaves_no_folder(state: Path) -> None:
    with pytest.raises(RuntimeError, match="in the middle"), making("web") as folder:
        (folder / "disk0.qcow2").touch()
        raise RuntimeError("in the middle")
    assert not folder.exists()
    assert made("web").path == folder


def test_a_name_is_taken_once_and_its_state_is_told(state: Path) -> None:
    made("off")
    me = process_of(os.getpid())
    made("on", pid=me.pid, started=me.started)
    for name, told in (("off", "exists already"), ("on", "runs already")):
        with pytest.raises(StateError, match=f"a machine named {name} {told}"), making(name):
            pass


def test_a_folder_lets_nobody_list_it(state: Path) -> None:
    assert made("web").path.stat().st_mode & 0o777 == 0o711


def test_one_at_a_time(state: Path) -> None:
    """Who does not wait is told so; who waits has its turn after the other."""
    folder, order = made("web").path, []

    def second() -> None:
        with held(folder) as there:
            order.append(f"second, {there}")

    waits = threading.Thread(target=second)
    with held(folder) as ours:
        assert ours
        with held(folder, wait=False) as theirs:
            assert not theirs
        waits.start()
        waits.join(0.2)
        assert waits.is_alive()
        order.append("first")
    waits.join(60)
    assert order == ["first", "second, True"]
    with held(folder, wait=False) as now:
        assert now


def test_who_waited_for_what_is_gone_is_told_so(state: Path) -> None:
    folder = made("web").path
    found: list[bool] = []

    def second() -> None:
        with held(folder) as there:
            found.append(there)

    waits = threading.Thread(target=second)
    with held(folder):
        waits.start()
        waits.join(0.2)
        machines.remove(folder)
    waits.join(60)
    assert found == [False]
    with held(folder, wait=False) as there:
        assert not there


def test_a_name_that_is_not_there_brings_a_near_one(state: Path) -> None:
    made("webserver")
    with pytest.raises(StateError) as near:
        machines.find("websever")
    assert near.value.fix == "did you mean webserver?"
    with pytest.raises(StateError) as far:
        machines.find("quite-another")
    assert far.value.fix == "tinamou ls shows all machines"


def test_a_ledger_of_nothing_is_no_file(state: Path) -> None:
    with ledger.edit() as now:
        now.reports.append("somebody else changed it")
    assert ledger.path().is_file() and not ledger.look().empty
    with ledger.edit() as now:
        now.reports.clear()
    assert not ledger.path().exists() and ledger.look().empty


def test_a_record_is_one_process_s_to_change_at_a_time(state: Path) -> None:
    record, order = made("web"), []

    def second() -> None:
        with locked(record.path):
            order.append("second")

    waits = threading.Thread(target=second)
    with locked(record.path):
        waits.start()
        waits.join(0.2)
        order.append("first")
    waits.join(60)
    assert order == ["first", "second"]
    assert record.file(files.LOCK).stat().st_mode & 0o777 == 0o600


def test_a_machine_is_called_what_its_folder_is(state: Path) -> None:
    """All that is said of it has that name; what comes with the next start only where there is such."""
    old = made("old")
    old.path.rename(state / "machines/new")
    found = machines.find("new")
    assert (found.name, found.former, found.spec["name"], found.later) == ("new", ["old"], "new", {})
    assert machines.find("new").next_spec["name"] == "new"


def test_a_value_of_another_kind_is_damage(state: Path) -> None:
    path = made("web").file(files.RECORD)
    for field, wrong in (("pid", "1"), ("ephemeral", 0), ("former", [1]), ("timings", {"boot": "long"}), ("uid", 1.5)):
        whole = path.read_text()
        path.write_text(json.dumps({**json.loads(whole), field: wrong}))
        with pytest.raises(StateError, match="the record of machine web is damaged"):
            machines.find("web")
        path.write_text(whole)
    assert machines.find("web").name == "web"
