"""The archive of an exported checkpoint: what it is written over, and what never."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinamou.errors import StateError
from tinamou.snapshots import archive


def test_an_archive_replaces_a_regular_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"one")
    (tmp_path / "victim").write_bytes(b"kept")
    for name in ("link", "made.part"):
        (tmp_path / name).symlink_to("victim")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(StateError, match=f"{name} is no regular file"):
            archive.pack({"one": tmp_path / "one"}, tmp_path / name)
    (tmp_path / "made").write_bytes(b"old")
    archive.pack({"one": tmp_path / "one"}, tmp_path / "made")
    (tmp_path / "to").mkdir()
    assert archive.unpack(tmp_path / "made", tmp_path / "to") == {"one"}
    assert (tmp_path / "victim").read_bytes() == b"kept" and (tmp_path / "made").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"one", "victim", "link", "made.part", "pipe", "made", "to"}
