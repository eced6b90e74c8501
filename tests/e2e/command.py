"""Running the tinamou command as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

TINAMOU = (sys.executable, "-m", "tinamou")


def tinamou(
    *words: str, input: str | None = None, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The finished command; stdin is empty unless ``input`` is given."""
    return subprocess.run(
        [*TINAMOU, *words],
        input=input or "",
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **environment},
    )


def begin(*words: str) -> subprocess.Popen[bytes]:
    """The command, running on its own."""
    return subprocess.Popen(
        [*TINAMOU, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def eventually(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait until something holds; fails saying what did not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.05)
