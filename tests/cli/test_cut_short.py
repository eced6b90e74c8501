"""What a command that is cut short leaves of a machine: nothing that was not there, no word of what did not come to be."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typed import TINAMOU, call

from tinamou.cli import output, running
from tinamou.machine import booting, life
from tinamou.spec import load_spec
from tinamou.state.record import Record
from tinamou.system import new_file, replaced, shown, unit_files


def a_record(folder: Path) -> Record:
    return Record(name="m", directory=str(folder), spec={"name": "m"}, created=1.0)


def test_a_start_that_is_cut_short_leaves_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that starts it cannot be cancelled: what it has made is removed, not only ended."""
    begins, goes_on, gone = threading.Event(), threading.Event(), []

    def begin(*_: object, **__: object) -> SimpleNamespace:
        begins.set()
        assert goes_on.wait(60)
        return SimpleNamespace(record=a_record(tmp_path))

    monkeypatch.setattr(booting, "begin", begin)
    monkeypatch.setattr(life, "discard", gone.append)

    async def cut() -> None:
        task = asyncio.ensure_future(booting.begun(load_spec({"name": "m"}), ephemeral=False))
        assert await asyncio.to_thread(begins.wait, 60)
        for _ in range(3):  # once, and while the thread is waited for
            task.cancel()
            await asyncio.wait([task], timeout=0.1)
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cut())
    assert gone == [a_record(tmp_path)]


def test_a_stop_that_is_cut_short_before_the_guest_was_asked_says_nothing_of_it(tmp_path: Path) -> None:
    async def cut() -> None:
        reached = asyncio.Event()

        async def session() -> None:
            reached.set()
            await asyncio.Event().wait()

        machine = SimpleNamespace(record=a_record(tmp_path), session=session, agent=None)
        task = asyncio.ensure_future(life.stop(machine))  # type: ignore[arg-type]
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cut())
    assert not life.was_asked_to_end(a_record(tmp_path))


def test_what_speaks_to_another_host_says_so_to_people() -> None:
    done = subprocess.run([*TINAMOU, "receive"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 118
    assert done.stderr.splitlines()[0] == "tinamou: this is for tinamou alone"


def test_the_end_of_the_line_from_another_host_is_told_in_words() -> None:
    done = call("receive")
    assert done.returncode == 115
    assert done.stderr.splitlines()[0] == "tinamou: the line to the other host has ended"
    assert "Traceback" not in done.stderr


def test_the_last_line_is_one_of_its_own_where_another_was_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    shown.guard()
    for cut in ("whole\n", "cut sh"):
        sys.stderr.write(cut)
        shown.say_last("interrupted")
    assert said.getvalue() == "whole\ninterrupted\ncut sh\ninterrupted\n"


def test_a_run_that_is_cut_short_before_its_first_step_begins_no_wait(recwarn: pytest.WarningsRecorder) -> None:
    ended: list[str] = []

    async def end() -> None:
        ended.append("machine")

    async def answered() -> None:
        raise AssertionError("nobody waits any more")

    async def cut() -> None:
        machine: Any = SimpleNamespace(end=end, running=False, share=lambda: None)
        task = asyncio.ensure_future(running.see_through(machine, answered, [], running.How()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cut())
    gc.collect()
    # what an earlier test left may be collected here too, and says what it says: only a wait is looked for
    assert [str(one.message) for one in recwarn if "never awaited" in str(one.message)] == []
    assert ended == []  # whoever started the machine ends it


def test_unit_files_are_there_all_of_them_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request to end between the service and its timer comes when both are there, or both are gone."""
    monkeypatch.setenv("TINAMOU_UNITS", str(tmp_path))
    write, unlink = Path.write_text, Path.unlink

    def asked(*_: object) -> None:
        raise SystemExit(143)

    def and_then(act: Callable[..., object]) -> Callable[..., object]:
        def acts(path: Path, *rest: Any, **how: Any) -> object:
            done = act(path, *rest, **how)
            os.kill(os.getpid(), signal.SIGTERM)
            return done

        return acts

    before = signal.signal(signal.SIGTERM, asked)
    try:
        monkeypatch.setattr(Path, "write_text", and_then(write))
        with pytest.raises(SystemExit):
            unit_files.written({"m.service": "one", "m.timer": "two"})
        monkeypatch.undo()
        monkeypatch.setenv("TINAMOU_UNITS", str(tmp_path))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["m.service", "m.timer"]
        monkeypatch.setattr(Path, "unlink", and_then(unlink))
        with pytest.raises(SystemExit):
            unit_files.removed([tmp_path / "m.service", tmp_path / "m.timer"])
        assert list(tmp_path.iterdir()) == []
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_warning_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its words and the end of its line no request to end can come."""
    written: list[str] = []
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=written.append, isatty=lambda: False, flush=lambda: None))
    output.warn("it is so")
    assert list(filter(None, written)) == ["tinamou: it is so\n"]


_LOADING = """
import os, signal, sys

class Asked:
    def find_spec(self, name, *_):
        if name == "tinamou.cli.main":
            os.kill(os.getpid(), signal.SIGNAME)

sys.meta_path.insert(0, Asked())
from tinamou.__main__ import main
main()
"""


@pytest.mark.parametrize(("name", "status", "said"), [("INT", 130, "interrupted"), ("TERM", 143, "ended by SIGTERM")])
def test_a_command_that_is_still_being_loaded_ends_in_one_line(name: str, status: int, said: str) -> None:
    words = [sys.executable, "-c", _LOADING.replace("NAME", name)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"{said}\n")


def test_a_request_to_end_waits_until_the_streams_are_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose change is cut short is not writable any more: it would end with status 1 and no word."""
    done: list[str] = []

    class Stream(io.StringIO):
        def reconfigure(self, **_: str) -> None:
            signal.raise_signal(signal.SIGTERM)  # to this thread: a command has no other by then, and pytest's workers do
            done.append("changed")  # a handler would have been called before

    def asked(*_: object) -> None:
        done.append("asked")
        raise KeyboardInterrupt

    said = Stream()
    monkeypatch.setattr(sys, "stdout", said)
    monkeypatch.setattr(sys, "stderr", said)
    before = signal.signal(signal.SIGTERM, asked)
    try:
        with pytest.raises(KeyboardInterrupt):
            shown.guard()
        shown.say_last("ended")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == ["changed", "changed", "asked"]
    assert said.getvalue() == "ended\n"
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("write", ["replaced", "new"])
def test_a_request_to_end_that_comes_as_a_file_is_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    really = os.open

    def cut(*words: Any, **options: Any) -> int:
        os.close(really(*words, **options))
        raise KeyboardInterrupt

    def attempt() -> None:
        if write == "replaced":
            replaced.replace_text(tmp_path / "file", "text")
        else:
            with new_file.new_file(tmp_path / "file"):
                pass

    with monkeypatch.context() as one:
        one.setattr(os, "open", cut)
        with pytest.raises(KeyboardInterrupt):
            attempt()
    assert list(tmp_path.iterdir()) == []
    attempt()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
