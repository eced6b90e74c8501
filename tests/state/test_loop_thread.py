"""The bridge from blocking code: whatever interrupts the wait, the coroutine is cancelled and has cleaned up before."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tinamou.system.lock import exclusive
from tinamou.system.loop_thread import dropped, in_thread, wait_for

INTERRUPTED = """
import asyncio, signal, sys
from tinamou.system.lock import exclusive
from tinamou.system.loop_thread import dropped, in_thread, wait_for

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

async def work():
    print("up", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        print("cleaning up", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print("cleaned up", flush=True)

try:
    wait_for(work())
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


@pytest.mark.parametrize(
    ("number", "times", "status"),
    [(signal.SIGINT, 1, 130), (signal.SIGINT, 2, 130), (signal.SIGTERM, 1, 143), (signal.SIGTERM, 2, 143)],
)
def test_cleans_up_before_it_ends(number: signal.Signals, times: int, status: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(number)
    assert process.stdout.readline() == "cleaning up\n"
    if times > 1:
        process.send_signal(number)
    out, err = process.communicate("go on\n", timeout=120)
    assert process.returncode == status, err
    assert out.splitlines()[0] == "cleaned up"
    assert err == ""


AT_EACH_LINE = """
import asyncio, signal, sys, time
from tinamou.system import loop_thread

async def work(events):
    events.append("begun")
    try:
        await asyncio.sleep(0.05)
        events.append("done")
    finally:
        await asyncio.sleep(0.001)
        events.append("cleaned up")

async def nothing():
    pass

loop_thread.wait_for(nothing())
for at in range(1, 100):
    seen, events, raised = [], [], False

    def line(frame, event, _):
        if event == "line":
            seen.append(frame.f_lineno)
            if len(seen) == at:
                signal.raise_signal(signal.SIGINT)
        return line

    def frame(frame, event, _):
        if frame.f_code.co_filename == loop_thread.__file__ and frame.f_code.co_name in ("wait_for", "_end"):
            return line

    sys.settrace(frame)
    try:
        loop_thread.wait_for(work(events))
    except KeyboardInterrupt:
        raised = True
    sys.settrace(None)
    before = list(events)
    time.sleep(0.01)
    assert before == events and events in ([], ["begun", "cleaned up"], ["begun", "done", "cleaned up"]), (seen, events)
    if len(seen) < at:
        break
    assert raised, seen
print(at)
"""


def test_cleans_up_wherever_the_request_comes() -> None:
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", AT_EACH_LINE], capture_output=True, text=True, timeout=240)
    assert ran.stderr == ""
    assert 8 < int(ran.stdout) < 99


def test_results_and_errors_come_through() -> None:
    async def work(value: int) -> int:
        await asyncio.sleep(0)
        if value < 0:
            raise ValueError("below zero")
        return value

    assert wait_for(work(3)) == 3
    with pytest.raises(ValueError, match="below zero"):
        wait_for(work(-1))


def test_the_callers_context_goes_along() -> None:
    seen = contextvars.ContextVar("seen", default="nothing")
    seen.set("this")

    async def work() -> str:
        return seen.get()

    assert wait_for(work()) == "this"


def test_not_on_the_loops_own_thread() -> None:
    async def inner() -> None:
        """Never awaited."""

    async def outer() -> None:
        wait_for(inner())

    with pytest.raises(RuntimeError, match=r"tinamou\.aio"):
        wait_for(outer())


def test_a_thread_has_ended_before_its_cancellation_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    order = []

    begun, goes_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert goes_on.wait(60)
        order.append("thread")
        raise ValueError("nobody asks for it")

    async def work() -> None:
        task = asyncio.ensure_future(in_thread(slow))
        assert await asyncio.to_thread(begun.wait, 60)
        for _ in range(3):  # once, and while that is waited for
            task.cancel()
            assert not (await asyncio.wait([task], timeout=0.1))[0]
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        order.append("cleaned up")

    asyncio.run(work())
    gc.collect()
    assert order == ["thread", "cleaned up"] and caplog.text == ""


def test_a_cancelled_thread_waits_for_no_lock(tmp_path: Path) -> None:
    def waits() -> None:
        with exclusive(tmp_path / "lock"):
            raise AssertionError("it was free")

    async def work() -> None:
        task = asyncio.ensure_future(in_thread(waits))
        await asyncio.sleep(0.1)
        await dropped(task)

    with exclusive(tmp_path / "lock"):
        asyncio.run(asyncio.wait_for(work(), 60))
    with exclusive(tmp_path / "lock"):
        pass
