"""The command ``tinamou`` as a user types it, from the tests' own Python."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TINAMOU = (sys.executable, "-m", "tinamou")


def call(*words: str, input: str = "", timeout: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
    """However it ends; ten minutes are enough for the slowest, a guest under nested virtualization."""
    return subprocess.run(
        [*TINAMOU, *words],
        input=input,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **environment},
    )


def tinamou(*words: str, status: int = 0) -> str:
    """What it prints; it must end with that status."""
    done = call(*words)
    assert done.returncode == status, done.stderr
    return done.stdout


def begin(*words: str) -> subprocess.Popen[bytes]:
    """The command, running on its own."""
    return subprocess.Popen(
        [*TINAMOU, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def number_in(path: Path) -> int:
    """The number that a command writes to a file, once the line is whole: the file is there before what is in it."""
    eventually(lambda: path.exists() and path.read_text().endswith("\n"), f"a number in {path}")
    return int(path.read_text())


def limits() -> Iterator[float]:
    """Limits of time, each longer than the last, for what must have begun before its time is up on a busy host."""
    yield from (0.5, 3.0, 12.0, 48.0)


def eventually(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait until something holds; fails saying what did not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.05)
