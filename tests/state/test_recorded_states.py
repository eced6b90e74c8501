"""State directories as earlier builds left them: their machines start, fork and go back under this one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typed import tinamou

RECORDED = Path(__file__).parent / "recorded"
HERE = b"/tmp/tm-eed7bb9_"
"""Where the recorded state was; a test's own has a path of as many bytes, so that it can stand in files in its place."""


def laid(state: Path) -> None:
    """Lay the state of build eed7bb9 into a state directory: a machine that is off, with a disk and a snapshot of it."""
    words = ["tar", "-xJf", RECORDED / "eed7bb9.tar.xz", "-C", state, "--strip-components=1", "--no-same-owner"]
    subprocess.run(words, check=True)
    here = str(state).encode()
    assert len(here) == len(HERE)
    for path in state.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes().replace(HERE, here))


def test_what_an_earlier_build_wrote_is_read(state):
    laid(state)
    [row] = json.loads(tinamou("ls", "--json"))
    assert (row["name"], row["state"], row["image"], row["memory"]) == ("web", "stopped", "tiny", 256 << 20)
    shown = json.loads(tinamou("show", "web", "--json"))
    assert shown["spec"]["memory"]["forkable"] is True and shown["spec"]["disk"] == [{"size": "16M"}]
    assert "clean" in tinamou("snapshot", "ls", "web")


@pytest.mark.vm
def test_a_machine_of_an_earlier_build_goes_on(state):
    """It starts with what was on its disk, is forked, and goes back to the snapshot that was taken then."""
    laid(state)
    head = ("--", "head", "-c", "6", "/dev/vda")
    try:
        tinamou("start", "web")
        assert tinamou("exec", "web", *head) == "second"
        [copy] = json.loads(tinamou("fork", "web", "--json"))["forks"]
        assert tinamou("exec", copy, *head) == "second"
        tinamou("snapshot", "create", "web", "later")
        tinamou("stop", "web")
        tinamou("snapshot", "revert", "web", "clean")
        tinamou("start", "web")
        assert tinamou("exec", "web", *head) == "first_"
    finally:
        for one in json.loads(tinamou("ls", "--json")):
            tinamou("rm", "-f", one["name"])
    assert json.loads(tinamou("ls", "--json")) == []
