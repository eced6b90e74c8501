"""A request to end is heeded at whatever moment it comes."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tinamou.cli import loop

SCRIPT = """
import asyncio, os, signal, sys, time, weakref
import tinamou.cli.main as cli
from tinamou.cli.loop import run_until_done

NUMBER = signal.{name}

def ask():
    os.kill(os.getpid(), NUMBER)
    for _ in range(100): pass

class Thing: pass

class Slow:
    def __init__(self): self.sleep = time.sleep
    def __del__(self): self.sleep(0.1)

slow = Slow()  # the interpreter takes its time to end, as it does on a busy host

{work}

cli._done = lambda words: work(words) or 0
sys.argv = ["tinamou", "ls"]
cli.main()
"""
LOSES = """
def work(words):
    thing = Thing()
    def tidy_up(_):
        ask()
    kept = weakref.ref(thing, tidy_up)
    {loses}
    time.sleep(10)
    return 0
"""
BEFORE_THE_LOOP = """
def work(words):
    waits = asyncio.sleep(10)
    ask()
    run_until_done(waits)
"""
AS_THE_LOOP_BEGINS = """
def work(words):
    begun = asyncio.run
    def run(work):
        ask()
        return begun(work)
    asyncio.run = run
    run_until_done(asyncio.sleep(10))
"""
AS_THE_LOOP_ENDS = """
from asyncio.selector_events import BaseSelectorEventLoop

def work(words):
    closes = BaseSelectorEventLoop.close
    def close(self):
        closes(self)
        ask()
    BaseSelectorEventLoop.close = close
    run_until_done(asyncio.sleep(0.01))
"""
AFTER_THE_LOOP = """
def work(words):
    run_until_done(asyncio.sleep(0.01))
    ask()
"""
SWALLOWED = """
def work(words):
    try:
        ask()
    except BaseException:
        pass
    time.sleep(10)
"""
AT_FIRST = """
cli.shown.guard, work = ask, None
"""
AT_LAST = """
def work(words):
    heed = signal.signal
    def ignore(number, handler):
        if handler is signal.SIG_IGN and number == signal.SIGTERM:
            signal.signal = heed
            ask()
        return heed(number, handler)
    signal.signal = ignore
    return 0
"""
SAYING = """
def work(words):
    raise cli.TinamouError("x")

cli._report = lambda *_: ask()
"""
SLOW_CLEAN_UP = """
def work(words):
    try:
        ask()
    finally:
        try:
            open("/nowhere")
        except OSError:
            time.sleep(0.5)
        print("clean")
"""
IN_CLEAN_UP = """
def work(words):
    async def cleans():
        asyncio.get_running_loop().call_later(0.05, ask)
        try:
            await asyncio.sleep(10)
        finally:
            ask()
            await asyncio.sleep(0.1)
            print("clean")
    run_until_done(cleans())
"""
NEVER_CLEAN = """
def work(words):
    async def cleans():
        asyncio.get_running_loop().call_later(0.05, ask)
        try:
            await asyncio.sleep(10)
        finally:
            for delay in (0.1, 0.2):
                asyncio.get_running_loop().call_later(delay, ask)
            await asyncio.sleep(20)
            print("clean")
    run_until_done(cleans())
"""
LINES = {"SIGTERM": "ended by SIGTERM\n", "SIGHUP": "ended by SIGHUP\n", "SIGINT": "interrupted\n"}
every = pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])


def ended(name: str, work: str) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(name=name, work=work)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)


@every
@pytest.mark.parametrize("loses", ["del thing", "tidy_up(None)"], ids=["where Python drops exceptions", "elsewhere"])
def test_a_request_to_end_is_not_lost(name: str, status: int, loses: str) -> None:
    done = ended(name, LOSES.format(loses=loses))
    assert (done.returncode, done.stderr) == (status, LINES[name])


@every
@pytest.mark.parametrize(
    "work",
    [BEFORE_THE_LOOP, AS_THE_LOOP_BEGINS, AS_THE_LOOP_ENDS, AFTER_THE_LOOP],
    ids=["before it", "as it begins", "as it ends", "after it"],
)
def test_around_a_loop(name: str, status: int, work: str) -> None:
    """CPython's own handlers of a loop leave a closed descriptor, then the default, behind."""
    done = ended(name, work)
    assert (done.returncode, done.stderr) == (status, LINES[name])


@every
@pytest.mark.parametrize("work", [AT_FIRST, AT_LAST, SAYING], ids=["as it begins", "as it ends", "while it says why"])
def test_around_the_work(name: str, status: int, work: str) -> None:
    done = ended(name, work)
    assert (done.returncode, done.stderr) == (status, LINES[name])


@every
def test_what_a_library_swallows_is_not_lost(name: str, status: int) -> None:
    done = ended(name, SWALLOWED)
    assert (done.returncode, done.stderr) == (status, LINES[name])


@every
@pytest.mark.parametrize("work", [SLOW_CLEAN_UP, IN_CLEAN_UP], ids=["that takes long", "by a second request"])
def test_clean_up_is_not_interrupted(name: str, status: int, work: str) -> None:
    done = ended(name, work)
    assert (done.returncode, done.stderr, done.stdout) == (status, LINES[name], "clean\n")


@every
def test_a_third_request_ends_what_does_not_end(name: str, status: int) -> None:
    done = ended(name, NEVER_CLEAN)
    assert (done.returncode, done.stderr, done.stdout) == (status, LINES[name], "")


def test_what_a_process_was_started_to_ignore_is_ignored() -> None:
    ignored = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    script = ignored + SCRIPT.format(name="SIGHUP", work=AFTER_THE_LOOP)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_other_lost_exceptions_are_told() -> None:
    assert signal.getsignal(signal.SIGWINCH) is signal.SIG_DFL
    done = ended("SIGWINCH", LOSES.format(loses="weakref.finalize(thing, lambda: 1 / 0); kept = None; del thing; return 0"))
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    ("said", "told"), [("Signal 15 ignored due to race condition", ""), ("Bad file descriptor", "Bad file")]
)
def test_a_request_as_the_command_ends_is_no_fault(
    said: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python has then no handler to call, and says so as an error that nobody raised."""
    heard: list[str] = []
    monkeypatch.setattr(sys, "__unraisablehook__", lambda lost: heard.append(str(lost.exc_value)))
    loop._lost(SimpleNamespace(exc_value=OSError(said)))  # type: ignore[arg-type]
    assert "".join(heard).startswith(told) and bool(heard) == bool(told)
