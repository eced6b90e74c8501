"""Folders of machines that have no entry yet: left alone while somebody makes them, cleared at once when nobody does."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tinamou.errors import StateError
from tinamou.machine.reconcile import reconcile
from tinamou.state import machines


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
