"""A request to end is heeded at whatever moment it comes."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys, time, weakref
import tinamou.cli.main as cli

class Thing: pass

class Slow:
    def __init__(self): self.sleep = time.sleep
    def __del__(self): self.sleep(0.1)

slow = Slow()  # the interpreter takes its time to end, as it does on a busy host

def work(words):
    thing = Thing()
    def tidy_up(_):
        os.kill(os.getpid(), signal.{name})
        for _ in range(100): pass
    kept = weakref.ref(thing, tidy_up)
    {loses}
    time.sleep(10)
    return 0

cli._done = work
sys.argv = ["tinamou", "ls"]
cli.main()
"""


def ended(name: str, loses: str) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(name=name, loses=loses)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
@pytest.mark.parametrize("loses", ["del thing", "tidy_up(None)"], ids=["where Python drops exceptions", "elsewhere"])
def test_a_request_to_end_is_not_lost(name: str, status: int, loses: str) -> None:
    done = ended(name, loses)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr


def test_other_lost_exceptions_are_told() -> None:
    done = ended("SIGWINCH", "weakref.finalize(thing, lambda: 1 / 0); kept = None; del thing; return 0")
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr
