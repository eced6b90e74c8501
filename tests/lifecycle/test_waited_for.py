"""A machine that another process starts, and a guest that still boots: what needs them waits, says for what, and ends."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from leftovers import Leftovers
from typed import begin, call, tinamou

from tinamou.late import replace
from tinamou.state.machines import find
from tinamou.state.record import update
from tinamou.system.spawn import process_of

pytestmark = pytest.mark.vm

INTO_THE_GUEST = [("exec", "m", "--", "true"), ("cp", "/etc/hostname", "m:/tmp/x"), ("cp", "m:/tmp/x", "FOLDER")]
INTO_ITS_STATE = [("fork", "m"), ("checkpoint", "m")]
OTHERS = ("process", "another")


@pytest.fixture
def silent(same_qemu: Path, leftovers: Leftovers) -> Iterator[None]:
    """The machine ``m``, whose guest never answers."""
    tinamou("run", "-d", "--name", "m", "--disk", "size=8M", "--no-wait", "--set", "memory.size=192M")
    yield
    tinamou("rm", "-f", "m")
    assert leftovers.settle() == []


def placed(words: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    return tuple(str(folder) if word == "FOLDER" else word for word in words)


def until(process: subprocess.Popen[bytes], what: str) -> str:
    """The line of a command in which it says what it waits for."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line.decode())
        if what in lines[-1]:
            return lines[-1]
    raise AssertionError(f"it never said {what!r}: {lines} {process.wait()}")


@pytest.mark.parametrize("words", [*INTO_THE_GUEST, *INTO_ITS_STATE], ids=lambda words: " ".join(words[:3]))
def test_a_guest_that_boots(silent: None, tmp_path: Path, words: tuple[str, ...]) -> None:
    process = begin(*placed(words, tmp_path))
    said = until(process, "waiting for the guest of m to answer; its machine was started")
    assert not any(word in said for word in OTHERS)
    tinamou("kill", "m")
    _, said_last = process.communicate(timeout=120)
    assert (process.returncode, b"m ended before its guest answered" in said_last) == (118, True), said_last
    assert b"process" not in said_last


@pytest.mark.parametrize("words", INTO_THE_GUEST, ids=lambda words: " ".join(words[:3]))
def test_patience_has_an_end(silent: None, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = call(*placed((words[0], "--timeout", "2", *words[1:]), tmp_path))
    assert done.returncode == 116 and "the guest of m did not answer within 2 s" in done.stderr


@pytest.mark.parametrize("words", [*INTO_THE_GUEST, ("ssh", "m", "--", "true")], ids=lambda words: " ".join(words[:3]))
def test_a_machine_that_another_process_starts(silent: None, tmp_path: Path, words: tuple[str, ...]) -> None:
    tinamou("kill", "m")
    folder, me = find("m").path, os.getpid()
    update(folder, lambda record: replace(record, owner_pid=me, owner_started=process_of(me).started))
    process = begin(*placed((words[0], "--timeout", "60", *words[1:]), tmp_path))
    until(process, f"waiting until process {me} has started m")
    update(folder, lambda record: replace(record, owner_pid=0, owner_started=0))
    _, said = process.communicate(timeout=120)
    assert process.returncode == 118 and b"machine m is not running" in said


@pytest.mark.parametrize("words", [*INTO_THE_GUEST, ("ssh", "m", "--", "true")], ids=lambda words: " ".join(words[:3]))
def test_nobody_waits_for_what_does_not_come(silent: None, tmp_path: Path, words: tuple[str, ...]) -> None:
    tinamou("kill", "m")
    done = call(*placed(words, tmp_path))
    assert done.returncode == 118 and "machine m is not running" in done.stderr and "waiting" not in done.stderr


def test_nobody_waits_for_a_guest_that_stands_still(silent: None) -> None:
    tinamou("pause", "m")
    done = call("cp", "/etc/hostname", "m:/tmp/x")
    assert done.returncode == 118 and "machine m is paused" in done.stderr and "tinamou resume m" in done.stderr


@pytest.mark.parametrize(
    "words", [("exec", "m", "--", "uname"), ("cp", "/etc/hostname", "m:/tmp/x"), ("fork", "m")], ids=lambda words: words[0]
)
def test_a_guest_that_answers_at_last(state: Path, leftovers: Leftovers, words: tuple[str, ...]) -> None:
    """The real one, which boots while the command waits."""
    tinamou("run", "-d", "--no-wait", "--name", "m")
    tinamou(*words)
    for name in tinamou("ls", "-q").split():
        tinamou("rm", "-f", name)
    assert leftovers.settle() == []
