"""Help is short and true, and shells can complete."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typed import call

from tinamou.cli import help
from tinamou.cli.verbs import VERBS


def test_what_stands_behind_the_dashes_is_told():
    assert "-- COMMAND" in call("exec", "--help").stdout.splitlines()[0]
    assert "-- COMMAND" in call("run", "--help").stdout.splitlines()[0]


def test_defaults_that_say_nothing_are_left_out():
    told = call("run", "--help").stdout
    assert "[default: 300]" in " ".join(told.replace("│", " ").split())
    assert not [word for word in ("False", "()", "None", '""') if f"[default: {word}]" in told]


def test_of_a_group_of_a_verb_and_of_a_verb_of_a_group():
    for words, first, row in (
        (["snapshot"], "Usage: tinamou snapshot COMMAND", "  flatten "),
        (["ls"], "Usage: tinamou ls [OPTIONS]", "  --quiet -q "),
        (["snapshot", "note"], "Usage: tinamou snapshot note ", "  NAME "),
    ):
        done = call(*words, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(first) and f"\n{row}" in done.stdout, done.stdout
    paragraphs = call("display", "--help").stdout
    assert paragraphs.splitlines()[1:3] == [
        "",
        "Open a machine's screen in a viewer; without one, or without a desktop, say",
    ]
    arguments, options = paragraphs.split("\nArguments:\n")[1].split("\nOptions:\n")
    assert "NAME" in arguments and "--" not in arguments and "--password" in options


def test_it_is_as_wide_as_the_terminal(monkeypatch, capsys):
    """Where stdout is one; longer lines are not read well."""
    monkeypatch.delenv("COLUMNS", raising=False)
    for columns, words, widest in ((50, ["ls"], 50), (500, ["run"], 120)):
        monkeypatch.setattr(os, "get_terminal_size", {1: os.terminal_size((columns, 24))}.__getitem__)
        assert help.show(words) == 0
        lengths = [len(line) for line in capsys.readouterr().out.splitlines()]
        assert widest - 12 < max(lengths) <= widest


def test_a_missing_name_is_asked_for_as_such():
    done = call("show")
    assert done.returncode == 2
    assert "parameter NAME" in done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_knows_every_verb(shell: str):
    done = call("completion", shell)
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in VERBS)


def test_a_refusal_of_the_system_is_no_traceback(tmp_path):
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "tinamou", "ls"],
        capture_output=True,
        text=True,
        check=False,
        env={"TINAMOU_STATE": str(tmp_path / "file" / "state"), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 119
    assert "Not a directory" in done.stderr and "Traceback" not in done.stderr
