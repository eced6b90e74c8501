"""Starting helpers: what keeps them from their sockets is named before they fail for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tinamou.blueprint import StartHelper, Why
from tinamou.errors import PrepareError
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
