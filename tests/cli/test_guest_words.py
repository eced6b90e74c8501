"""What stands behind ``--`` is the guest's: tinamou reads none of it; what stands before it about the command, it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tinamou.cli.running import How, run
from tinamou.cli.streams import Given
from tinamou.errors import SpecError
from tinamou.spec import load_spec


def tinamou(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tinamou", *words]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "before",
    [
        ["exec", "nosuch"],
        ["ssh", "nosuch"],
        ["run", "/no/such/image"],
        ["run", "--set", "nmae=x"],
        ["pool", "run", "nosuch"],
        ["convert", "/no/such"],
        ["convert"],
    ],
)
def test_words_of_the_guest_are_not_read(before, state):
    done = tinamou(*before, "--", "curl", "--json", "--help", "--version", "--no-such-option")
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Usage" not in done.stderr and "Traceback" not in done.stderr


def test_words_of_tinamou_are(state):
    done = tinamou("run", "--json", "--set", "nmae=x", "--", "true")
    assert json.loads(done.stdout)["code"] == done.returncode == 110


def test_variables_are_given_or_taken_from_here(monkeypatch):
    monkeypatch.setenv("HERE", "x=y")
    made = Given(("A=", "B=c=d", "HERE"), "/tmp", "nobody").command(["env"])
    assert made.env == {"A": "", "B": "c=d", "HERE": "x=y"}
    assert (made.argv, made.cwd, made.user) == (("env",), "/tmp", "nobody")
    with pytest.raises(SpecError) as refused:
        Given(("=x", "NOT_SET_HERE")).command(["env"])
    assert [problem.value for problem in refused.value.problems] == ["=x", "NOT_SET_HERE"]


def test_a_terminal_needs_one(monkeypatch):
    null = os.open(os.devnull, os.O_RDONLY)
    kept = os.dup(0)
    os.dup2(null, 0)
    try:
        with pytest.raises(SpecError, match="cannot be given a terminal") as refused:
            Given(tty=True).command(["sh"])
        assert "leave out -t" in refused.value.problems[0].fix
    finally:
        os.dup2(kept, 0)
        os.close(null)
        os.close(kept)


def test_options_of_a_command_need_one():
    with pytest.raises(SpecError) as refused:
        run(load_spec({"image": "tiny"}), None, How(given=Given(("A=b",), "/tmp", "nobody", tty=True)))
    assert [problem.path for problem in refused.value.problems] == ["--env", "--workdir", "--user"]
