"""The command ``tinamou cp`` and its refusals."""

from __future__ import annotations

import os

import pytest
from typed import call

from tinamou.cli import cp
from tinamou.errors import SpecError, StateError


@pytest.mark.parametrize("paths", [("a", "b"), ("vm:/a", "vm:/b"), ("vm:/a", "other:/b"), ("a", "vm:/b", "vm:/c")])
def test_one_side_is_a_guest_and_one_is_not(paths):
    with pytest.raises(SpecError, match="cannot be copied"):
        cp.command(*paths)


def test_incomplete_and_unknown(capsys):
    assert cp.command("a") == 2
    assert "copy what to where" in capsys.readouterr().err
    with pytest.raises(StateError):
        cp.command("a", "no-such-machine:/x")


@pytest.mark.vm
def test_copies_with_a_machine(state, tmp_path):
    started = call("run", "-d", "--name", "box")
    assert started.returncode == 0, started.stderr
    try:
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "data").write_bytes(os.urandom(100_000))
        (folder / "run.sh").write_text("#!/bin/sh\n")
        (folder / "run.sh").chmod(0o755)
        for words in (
            ("cp", str(folder), "box:/root/copied"),
            ("cp", "box:/root/copied", str(tmp_path / "back")),
            ("cp", str(folder / "data"), str(folder / "run.sh"), "box:/tmp"),
            ("cp", "box:/tmp/data", "box:/tmp/run.sh", str(tmp_path)),
        ):
            done = call(*words)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        for name in ("data", "run.sh"):
            assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()
            assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
        assert (tmp_path / "back" / "run.sh").stat().st_mode & 0o777 == 0o755
        missing = call("cp", "box:/no/such", str(tmp_path))
        assert missing.returncode == 116
        assert "/no/such" in missing.stderr
    finally:
        assert call("rm", "-f", "box").returncode == 0
