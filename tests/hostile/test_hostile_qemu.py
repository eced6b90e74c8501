"""A silent, babbling or lying QEMU: no command about others waits for it, none ends in a traceback."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import pytest
import stand_in
from lying import command, commands, complaint, machine, rows, said

WAYS = [way for way in stand_in.QMP if way != "honest"]


@pytest.fixture
def everybody(state):
    """One machine for each way to lie, and an honest one."""
    with contextlib.ExitStack() as stack:
        for way in (*WAYS, "honest"):
            stack.enter_context(machine(way, qmp=way, agent="honest" if way == "honest" else "silent"))
        yield


def test_ls(everybody):
    found = rows(command("ls", "--json", seconds=120))
    assert found.keys() == {*WAYS, "honest"}
    assert (found["honest"]["state"], found["honest"]["why"]) == ("running", None)
    for way in WAYS:
        assert found[way]["state"] == "unknown", found[way]
        assert len(str(found[way]["why"])) > 10
    table = said(command("ls", seconds=120))
    assert "escapes: QEMU answered what is no run state: the answer: '\\x1b[2J" in table
    assert table.count("tinamou: ") == len(WAYS)


def test_stats_and_top(everybody):
    found = rows(command("stats", "--json", seconds=120))
    assert found.keys() == {*WAYS, "honest"}
    assert found["honest"]["state"] == "running"
    assert {found[way]["state"] for way in WAYS} == {"unknown"}
    assert all(found[way]["missing"] for way in WAYS)
    named = command("stats", "silent", "honest", seconds=120)
    assert named.returncode == 115
    assert "silent: no numbers: " in complaint(named)
    assert "honest" in named.stdout
    words = [sys.executable, "-m", "tinamou", "top", "--json", "--interval", "1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as top:
        assert top.stdout is not None
        seen = {one["name"]: one["state"] for one in json.loads(top.stdout.readline())["machines"]}
        top.terminate()
    assert seen == {**dict.fromkeys(WAYS, "unknown"), "honest": "running"}


def test_watch(everybody):
    told = said(command("watch", "--once", seconds=120))
    for way in WAYS:
        assert f" {way}: bad: " in told, told


def test_others_are_not_asked(everybody):
    for words in (["net", "ls"], ["pool", "ls"], ["doctor", "silent"]):
        said(command(*words, seconds=120))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("verb", ["show", "pause", "reset", "checkpoint", "suspend", "resume"])
def test_one_machine(everybody, verb):
    words = [verb]
    done = commands([[*words, way] for way in WAYS], seconds=120)
    for one in done.values():
        assert one.returncode in (0, 2, 112, 115, 116, 117, 118)
        assert one.returncode == 0 or complaint(one)
        said(one)


def test_what_qemu_says_in_an_error(state):
    with machine("one", qmp="refuses"):
        done = command("pause", "one")
        assert done.returncode == 115
        assert r"why: \x1b[2J\x1b]0;owned\x07running\r\x9b31m (GenericError)" in complaint(done)
        json_too = command("stats", "one", "--json")
        assert "\\u001b[2J" in said(json_too)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "en_US.ISO-8859-1"])
def test_a_name_that_is_no_text(state, monkeypatch, locale):
    monkeypatch.setenv("LC_ALL", locale)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii:strict")
    done = command("show", "\udcff\x1b[2J…")
    assert done.returncode == 118
    assert "there is no machine named" in complaint(done)


@pytest.mark.parametrize("way", ["silent", "never-answers", "events", "closes", "deep-answer"])
def test_stop_keeps_its_grace(state, way):
    with machine("one", qmp=way, agent="silent"):
        done = command("stop", "one", "--grace", "3", seconds=120)
        assert done.returncode == 0
        assert "its power was cut" in complaint(done)
        assert rows(command("ls", "--json"))["one"]["state"] == "stopped"


def test_a_save_cut_short_of_a_silent_machine(state):
    with machine("one", qmp="never-answers") as record:
        record.file("checkpointing").write_text("1 1")
        found = rows(command("ls", "--json", seconds=120))
        assert found["one"]["state"] == "unknown"


def test_a_damaged_entry(state):
    with machine("one"), machine("two") as record:
        record.file("machine.json").write_text('{"name": 7')
        done = command("ls", "--json")
        assert rows(done)["one"]["state"] == "running"
        assert "the record of machine two is damaged" in done.stderr
