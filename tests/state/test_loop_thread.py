"""The bridge from blocking code: whatever interrupts the wait, the coroutine is cancelled and has cleaned up before."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import subprocess
import sys
import time
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
        await asyncio.sleep(0.3)
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
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.1)
    out, err = process.communicate(timeout=20)
    assert process.returncode == status, err
    assert out.splitlines()[0] == "cleaned up"
    assert err == ""


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

    def slow() -> None:
        time.sleep(0.2)
        order.append("thread")
        raise ValueError("nobody asks for it")

    async def work() -> None:
        task = asyncio.ensure_future(in_thread(slow))
        await asyncio.sleep(0.05)
        task.cancel()
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
        asyncio.run(asyncio.wait_for(work(), 20))
    with exclusive(tmp_path / "lock"):
        pass
