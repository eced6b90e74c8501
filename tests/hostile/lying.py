"""Machines whose QEMU, agent or resident lies, and the tinamou command as a user runs it on them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import stand_in

from tinamou.state import machines
from tinamou.state.record import Record, create
from tinamou.system.spawn import process_of

STAND_IN = str(Path(stand_in.__file__))


@contextlib.contextmanager
def machine(
    name: str, qmp: str = "honest", agent: str = "honest", resident: str = "honest", **more: object
) -> Iterator[Record]:
    """An entry whose process is a stand-in for QEMU, each part of which lies in its way."""
    directory = machines.machines_dir() / name
    directory.mkdir(mode=0o711)
    words = [sys.executable, "-I", "-S", STAND_IN, str(directory), qmp, agent, resident]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            known = process_of(process.pid)
            given = {"image": "tiny", "arch": "x86_64", "accel": "tcg", "created": time.time(), **more}
            spec = {"image": "tiny", "name": name, "net": [{"type": "none"}]}
            record = Record(name, str(directory), spec, pid=known.pid, started=known.started, **given)
            create(record)
            yield record
        finally:
            process.kill()


def command(*words: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
    """The finished command, which must be done within so many seconds."""
    argv = [sys.executable, "-m", "tinamou", *words]
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False, env=os.environ
    )


def commands(every: Sequence[Sequence[str]], seconds: float) -> dict[str, subprocess.CompletedProcess[str]]:
    """The same for many, four at a time, by their last word."""
    with ThreadPoolExecutor(4) as pool:
        done = pool.map(lambda words: command(*words, seconds=seconds), every)
        return {words[-1]: one for words, one in zip(every, done, strict=True)}


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What a command printed, which is no traceback, moves no cursor, and is not endless."""
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text[-3000:]
    assert not _CONTROL.search(text), repr(text[:2000])
    assert len(text) < 100_000, text[:1000]
    return text


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The line in which a command says what went wrong, with why and fix below it."""
    said(done)
    first, *more = done.stderr.splitlines()
    assert first.startswith("tinamou: "), done.stderr
    assert all(line.startswith(("why: ", "fix: ", "tinamou: ")) for line in more), done.stderr
    return done.stderr


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    """The rows of ``--json``, by name."""
    said(done)
    return {row["name"]: row for row in json.loads(done.stdout)}
