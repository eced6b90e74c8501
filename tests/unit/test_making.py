"""Folders of machines that have no entry yet: left alone while somebody makes them, cleared at once when nobody does."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.machine.reconcile import reconcile
from tinamou.state import machines
from tinamou.state.folder import image_of


def test_a_folder_is_left_alone_while_it_is_made(state: Path) -> None:
    with machines.making("new") as folder:
        assert reconcile() == []
        assert folder.is_dir()
        with pytest.raises(StateError, match="exists already"), machines.making("new"):
            pass
    assert reconcile() == ["removed the remains of a start that was cut short: new"]
    assert not folder.exists()


def test_a_folder_whose_making_failed_is_gone(state: Path) -> None:
    with pytest.raises(RuntimeError), machines.making("new") as folder:
        (folder / "uid").write_text("1")
        raise RuntimeError
    assert not folder.exists()


def test_a_folder_whose_maker_was_killed_is_cleared_at_once(state: Path) -> None:
    code = "import os\nfrom tinamou.state import machines\nwith machines.making('new'): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert (machines.machines_dir() / "new").is_dir()
    reconcile()
    with machines.making("new"):
        pass


def test_a_name_whose_folder_is_being_cleared_is_waited_for(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a service is killed, and the next one tidies up while the machine is asked for again."""
    folder = machines.machines_dir() / "new"
    folder.mkdir()
    (folder / "of the first").touch()
    begun, goes_on, held = threading.Event(), threading.Event(), machines.held

    def clearing(_: Path) -> None:
        begun.set()
        assert goes_on.wait(60)

    def waiting(path: Path, *, wait: bool = True) -> AbstractContextManager[bool]:
        if threading.current_thread() is threading.main_thread():
            goes_on.set()
        return held(path, wait=wait)

    monkeypatch.setattr("tinamou.machine.reconcile._end_strays", clearing)
    monkeypatch.setattr(machines, "held", waiting)
    clearer = threading.Thread(target=reconcile)
    clearer.start()
    try:
        assert begun.wait(60)
        assert reconcile() == []  # the other one has it in hand
        with machines.making("new") as made:
            assert [*made.iterdir()] == []
    finally:
        goes_on.set()
        clearer.join()


def test_a_name_whose_clearer_was_killed_is_taken_until_it_is_cleared(state: Path) -> None:
    folder = machines.machines_dir() / "new"
    folder.mkdir()
    (folder / files.CLEARED).touch()
    with pytest.raises(StateError, match="a machine named new exists already"), machines.making("new"):
        pass
    assert reconcile() == ["removed the remains of a start that was cut short: new"]
    with machines.making("new"):
        pass


_KILLED = """
import os, signal
from tinamou.facts import ImageFacts
from tinamou.machine import starting
from tinamou.spec import load_spec
entered = starting.machines.entered
def then_killed(*made, **how):
    entered(*made, **how)
    os.kill(os.getpid(), signal.SIGKILL)
starting.machines.entered = then_killed
starting.resolve_image = lambda *_, **__: ImageFacts("tiny", "x86_64", boots=("direct",))
starting.begin(load_spec({"name": "web"}), ephemeral=False)
"""


def test_a_machine_whose_maker_was_killed_can_be_started_as_soon_as_it_is_one(state: Path) -> None:
    """What its record says is not all a start needs: the image is known before there is a record."""
    assert subprocess.run([sys.executable, "-c", _KILLED], check=False).returncode == -signal.SIGKILL
    reconcile()
    assert image_of(machines.find("web")).name == "tiny"


def test_makers_and_clearers_do_not_meet(state: Path) -> None:
    """A folder that was cleared between being made and being locked is made again."""
    over = threading.Event()

    def clear() -> None:
        while not over.is_set():
            reconcile()

    clearer = threading.Thread(target=clear)
    clearer.start()
    try:
        for number in range(300):
            with machines.making(f"m{number}") as folder:
                (folder / "uid").write_text("")
                assert folder.is_dir()
    finally:
        over.set()
        clearer.join()
