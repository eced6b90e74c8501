"""The index of machines at rest saves reading them, and is never believed against what their folders say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinamou.machine.reconcile import reconcile
from tinamou.state import index, machines, uids
from tinamou.state.index import look
from tinamou.state.record import Record, change, create

OPENED = """
import os, sys
opened = []
sys.addaudithook(lambda event, words: event == "open" and isinstance(words[0], str) and opened.append(words[0]))
sys.argv = ["tinamou", *sys.argv[1:]]
def ended(status):
    print("opened:", *(path for path in opened if "/machines/" in path), flush=True)
    sys.exit(status)
os._exit = ended
from tinamou.cli.main import main
main()
"""


def made(name: str, **fields: object) -> Record:
    """A machine that was started once, and is as old as one must be to have a row."""
    with machines.making(name) as folder:
        record = create(Record(name=name, directory=str(folder), spec={"image": "tiny"}, image="tiny", **fields))
        (folder / "uid").write_text("1900000007")
        (folder / "uid").chmod(0o600)
    return record


@pytest.fixture(autouse=True)
def grown_up(monkeypatch):
    monkeypatch.setattr(index, "_YOUNG_NS", -1_000_000_000)


def names() -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in look().rows()]


def settled() -> Path:
    """Two machines at rest, with rows; the index."""
    made("a"), made("b")
    assert names() == [("a", "tiny"), ("b", "tiny")]
    return machines.machines_dir().parent / "index.json"


def _opened(*words: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", OPENED, *words], capture_output=True, text=True, check=False)
    said, _, opened = done.stdout.rpartition("opened:")
    return said, opened


def test_a_list_of_machines_at_rest_opens_none_of_them(state):
    settled()
    said, opened = _opened("ls")
    assert [line.split()[0] for line in said.splitlines()] == ["NAME", "a", "b"]
    assert opened.split() == []


@pytest.mark.parametrize("words", [("show", "a"), ("snapshot", "ls", "a"), ("logs", "a"), ("exec", "a", "--", "true")])
def test_what_is_about_one_machine_opens_nothing_of_others(state, words):
    made("a"), made("b")
    _, opened = _opened(*words)
    assert "/machines/a/machine.json" in opened
    assert "/machines/b" not in opened


def test_only_what_has_changed_is_read(state, monkeypatch):
    settled()
    change(machines.find("b"), image="other")
    read: list[str] = []
    real = index.read
    monkeypatch.setattr(index, "read", lambda folder: read.append(folder.name) or real(folder))
    assert names() == [("a", "tiny"), ("b", "other")]
    assert read == ["b"]


def test_a_record_edited_in_place_counts(state):
    settled()
    path = machines.machines_dir() / "a/machine.json"
    path.write_text(path.read_text().replace('"tiny"', '"kept"'))
    assert names() == [("a", "kept"), ("b", "tiny")]


@pytest.mark.parametrize(
    "lie", ["", "[]", "{", '{"format": 1, "rows": {"a": 1}}', '{"format": 2, "rows": {}}', "rows", "short"]
)
def test_an_index_that_lies_is_made_anew(state, lie):
    path = settled()
    if lie == "rows":  # whatever it says of machines that are gone, or of others than those that are there
        rows = json.loads(path.read_text())["rows"]
        lie = json.dumps({"format": 1, "rows": {"gone": rows["a"], "b": rows["a"], "a": [*rows["a"][:4], 5, "x", None]}})
    elif lie == "short":
        rows = json.loads(path.read_text())["rows"]
        lie = json.dumps({"format": 1, "rows": {"b": rows["b"], "a": rows["a"][:2]}})
    path.write_text(lie)
    assert names() == [("a", "tiny"), ("b", "tiny")]
    assert sorted(json.loads(path.read_text())["rows"]) == ["a", "b"]


def test_an_index_others_can_write_to_is_not_read(state):
    path = settled()
    path.write_text(path.read_text().replace('"tiny"', '"false"'))
    assert names() == [("a", "false"), ("b", "false")], "its owner's own word counts"
    path.chmod(0o666)
    assert names() == [("a", "tiny"), ("b", "tiny")]


def test_a_machine_that_was_just_changed_has_no_row(state, monkeypatch):
    """The next change could bear the same time, and would not be seen."""
    settled()
    monkeypatch.setattr(index, "_YOUNG_NS", 60_000_000_000)
    change(machines.find("a"), image="other")
    found = look()
    assert [row[0] for row in found.rows()] == ["b"]
    assert [path.name for path in found.others] == ["a"]
    assert [(one.name, one.image) for one in found.awake] == [("a", "other")]


def test_who_looks_again_reads_the_index_once(state, monkeypatch):
    settled()
    first, reads = look(), list[Path]()
    monkeypatch.setattr(index, "read_own", lambda path, **_: reads.append(path))
    assert look().rows() == first.rows() != [] and reads == []


@pytest.mark.parametrize("fields", [{"pid": 1}, {"owner_pid": 1}, {"ephemeral": True}, {"replicated": {"at": 1.0}}])
def test_who_needs_something_has_no_row(state, fields):
    made("a", **fields)
    assert look().rows() == []


def test_a_suspended_machine_has_no_row(state):
    (made("a").path / "suspended").mkdir()
    assert look().rows() == []


def test_what_was_at_rest_is_tidied_up_when_it_is_left_behind(state):
    settled()
    change(machines.find("a"), pid=2**22 + 1, started=1)
    assert [line.partition(" ended")[0].partition(" was")[0] for line in reconcile()] == ["machine a"]
    assert machines.find("a").pid == 0


def test_a_folder_that_became_another_is_odd(state):
    settled()
    folder = machines.machines_dir() / "a"
    folder.rename(folder.parent.parent / "elsewhere")
    folder.symlink_to(folder.parent.parent / "elsewhere")
    found = look()
    assert [row[0] for row in found.rows()] == ["b"]
    assert found.odd == [f"{folder} is a link: it is left alone"]


@pytest.mark.root
def test_a_user_id_of_a_machine_at_rest_is_not_lent(state):
    settled()
    assert look().uids() == {str(machines.machines_dir() / name): 1900000007 for name in "ab"}
    with machines.making("c") as folder:
        (folder / "machine.json").write_text("{}")
        assert machines.lease_uid(folder) not in (None, 1900000007)
        assert uids.of(folder) is not None


def test_that_nothing_has_changed_is_seen_by_one_look_at_each_record(state, monkeypatch):
    settled()
    looked: list[str] = []
    real = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path, **how: looked.append(str(path)) or real(path, **how))
    assert len(look().rows()) == 2
    assert sorted(looked) == ["a/machine.json", "b/machine.json"]
