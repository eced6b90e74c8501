"""Files that a user names: new ones are new, no device is written over, and nobody's own file is in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinamou.errors import StateError
from tinamou.system.new_file import new_file


def test_it_is_there_when_it_is_whole(tmp_path: Path) -> None:
    theirs = tmp_path / "a.part"
    theirs.write_text("a user's own")
    with new_file(tmp_path / "a") as out:
        os.write(out, b"all")
        assert not (tmp_path / "a").exists()
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "a").stat().st_mode & 0o777) == (b"all", 0o600)
    assert theirs.read_text() == "a user's own"
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "b"):
        raise KeyboardInterrupt
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "a.part"]


def test_a_file_that_is_there_is_replaced_only_by_force(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("old")
    with pytest.raises(StateError, match="exists already"), new_file(file):
        pass
    with new_file(file, force=True) as out:
        os.write(out, b"new")
    assert file.read_text() == "new"
    with pytest.raises(StateError, match="exists already"), new_file(tmp_path / "b"):
        (tmp_path / "b").write_text("came meanwhile")
    assert (tmp_path / "b").read_text() == "came meanwhile"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "b"]


def test_what_is_no_regular_file_is_never_written_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    for name in ("pipe", "link", "folder"):
        with pytest.raises(StateError, match="no regular file"), new_file(tmp_path / name, force=True):
            pass
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "link").is_symlink()
