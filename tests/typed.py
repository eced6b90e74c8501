"""The command ``tinamou`` as a user types it, from the tests' own Python."""

from __future__ import annotations

import subprocess
import sys


def call(*words: str) -> subprocess.CompletedProcess[str]:
    """However it ends; ten minutes are enough for the slowest, a guest under nested virtualization."""
    argv = [sys.executable, "-m", "tinamou", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)


def tinamou(*words: str) -> str:
    """What it prints; it must go well."""
    done = call(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout
