"""Help is short and true, and shells can complete."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tinamou.cli.app import VERBS


def tinamou(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tinamou", *words], capture_output=True, text=True, check=False)


def test_what_stands_behind_the_dashes_is_told():
    assert "-- COMMAND" in tinamou("exec", "--help").stdout.splitlines()[0]
    assert "-- COMMAND" in tinamou("run", "--help").stdout.splitlines()[0]


def test_defaults_that_say_nothing_are_left_out():
    told = tinamou("run", "--help").stdout
    assert "[default: 300]" in told
    assert not [word for word in ("False", "()", "None", '""') if f"[default: {word}]" in told]


def test_a_missing_name_is_asked_for_as_such():
    done = tinamou("show")
    assert done.returncode == 2
    assert "parameter NAME" in done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_knows_every_verb(shell: str):
    done = tinamou("completion", shell)
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
