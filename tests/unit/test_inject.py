"""System calls another process makes at our word: what they do, and that it goes on as if nothing had been."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tinamou.system import holding
from tinamou.system.inject import begin, held

pytestmark = pytest.mark.skipif(bool(holding.why_not()), reason=holding.why_not() or "-")

WAITS = """
import select, signal, sys, time
heard, short = [], 0
signal.signal(signal.SIGUSR1, lambda *_: heard.append("heard"))
print("ready", flush=True)
while True:
    began = time.monotonic()
    if select.select([sys.stdin], [], [], 0.25)[0]:
        break
    short += time.monotonic() - began < 0.24
print(short, *heard, flush=True)
"""


@pytest.fixture
def waiting() -> Iterator[subprocess.Popen[str]]:
    """A process that waits a quarter of a second again and again; once told so it says how many were cut short."""
    words = [sys.executable, "-c", WAITS]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def said(waiting: subprocess.Popen[str]) -> list[str]:
    """What it says when it is told to, and to end."""
    told, _ = waiting.communicate("enough\n", timeout=120)
    assert waiting.returncode == 0
    return told.split()


def test_it_calls_and_goes_on(waiting: subprocess.Popen[str]) -> None:
    def work() -> list[int]:
        answers = []
        for _ in range(20):
            with held(waiting.pid) as caller:
                answers += [caller.call("getpid") for _ in range(5)]
            time.sleep(0.01)
        return answers

    assert begin(work).result() == [waiting.pid] * 100
    assert said(waiting) == ["0"]


def test_a_failing_call_is_told(waiting: subprocess.Popen[str]) -> None:
    def work() -> None:
        with held(waiting.pid) as caller:
            caller.call("close", 99)

    with pytest.raises(OSError, match="close of process") as told:
        begin(work).result()
    assert told.value.errno == errno.EBADF
    assert said(waiting) == ["0"]


def test_signals_that_come_meanwhile_arrive(waiting: subprocess.Popen[str]) -> None:
    def work() -> None:
        with held(waiting.pid) as caller:
            os.kill(waiting.pid, signal.SIGUSR1)
            assert caller.call("getpid") == waiting.pid

    begin(work).result()
    assert said(waiting)[1:] == ["heard"]


def test_one_that_ends_meanwhile_is_told(waiting: subprocess.Popen[str]) -> None:
    def work() -> None:
        with held(waiting.pid) as caller:
            os.kill(waiting.pid, signal.SIGKILL)
            caller.call("getpid")

    with pytest.raises(ProcessLookupError):
        begin(work).result()


def test_one_that_is_held_by_another_is_left_alone(waiting: subprocess.Popen[str]) -> None:
    def work() -> None:
        with held(waiting.pid), pytest.raises(PermissionError, match="cannot be held"):
            begin(lambda: held(waiting.pid).__enter__()).result()

    begin(work).result()
    assert said(waiting) == ["0"]


ENDS_INSIDE = """
import os, sys
from tinamou.system.inject import held
with held(int(sys.argv[1])) as caller:
    caller.call("getpid")
    os._exit(0)
"""


def test_it_never_runs_on_with_our_registers(waiting: subprocess.Popen[str]) -> None:
    """Whoever holds it ends in the middle: the kernel ends it, too."""
    subprocess.run([sys.executable, "-c", ENDS_INSIDE, str(waiting.pid)], check=True)
    assert waiting.wait() == -signal.SIGKILL
