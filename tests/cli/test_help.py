"""Help is short and true, and shells can complete."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typed import call

from tinamou.cli.verbs import VERBS


def test_what_stands_behind_the_dashes_is_told():
    assert "-- COMMAND" in call("exec", "--help").stdout.splitlines()[0]
    assert "-- COMMAND" in call("run", "--help").stdout.splitlines()[0]


def test_defaults_that_say_nothing_are_left_out():
    told = call("run", "--help").stdout
    assert "[default: 300]" in " ".join(told.replace("│", " ").split())
    assert not [word for word in ("False", "()", "None", '""') if f"[default: {word}]" in told]


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
