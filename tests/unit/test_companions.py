"""Starting helpers: what keeps them from their sockets is named before they fail for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tinamou.blueprint import HandOver, StartHelper, Why
from tinamou.errors import LaunchError, PrepareError
from tinamou.launch.handover import open_all
from tinamou.prepare import helper_processes
from tinamou.prepare.journal import Journal


def helper(folder: Path, owner: int | None) -> StartHelper:
    """One whose socket is there at once: it is the file it makes."""
    socket = str(folder / "inner" / "helper.sock")
    return StartHelper("helper", ("touch", socket), socket, Why("test", "test"), owner)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A machine's folder, with one in it that keeps others out."""
    (tmp_path / "inner").mkdir()
    tmp_path.chmod(0o700)
    return tmp_path


def test_a_folder_that_lets_nobody_through_is_named(folder: Path) -> None:
    with pytest.raises(PrepareError, match=r"helper cannot reach") as refused:
        helper_processes.start(helper(folder, folder.stat().st_uid + 1), Journal(folder))
    named = re.search(r"and (\S+) lets no other user through\nfix: chmod o\+x (\S+),", str(refused.value))
    assert named and named[1] == named[2] and not Path(named[1]).stat().st_mode & 0o001


def test_helpers_that_run_as_its_owner_pass(folder: Path) -> None:
    helper_processes.start(helper(folder, None), Journal(folder))
    assert (folder / "inner" / "helper.sock").exists()


ENDS = "import os, socket, sys; socket.socket(1).bind(sys.argv[1]); sys.exit('a call was refused')"


@pytest.mark.parametrize("inner", ["", "its-own"])
def test_one_that_ends_before_it_listens_is_heard(tmp_path: Path, inner: str) -> None:
    """Its socket was there, so that it was taken for started: who cannot connect is told what it said."""
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    socket, why = str(folder / "helper.sock"), Why("test", "test")
    step = StartHelper("helper", ("/usr/bin/python3", "-c", ENDS, socket), socket, why)
    helper_processes.start(step, Journal(tmp_path))
    with pytest.raises(LaunchError, match="Connection refused") as failed:
        open_all([step, HandOver(socket, "connect", why)], ())
    assert failed.value.evidence["helper said"].strip() == "a call was refused"
    assert failed.value.fix == "see what the helper said above"
