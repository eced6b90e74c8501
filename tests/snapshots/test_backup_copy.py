"""Overlays copied into a backup: bytes, holes and sums are right, and what is no sound file is refused."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from bare_machine import run

from tinamou.errors import ImageError
from tinamou.snapshots import backup_copy
from tinamou.snapshots.backup_copy import Settling, copy_overlay
from tinamou.system.qcow2 import read_header, write_overlay

MIB = 1 << 20


def overlay(path: Path, tail: bytes = b"") -> Path:
    """A file with a hole of 20 MiB, zeros that take room, and data that no piece begins or ends with."""
    write_overlay(path, 1 << 30, "base.raw", "raw")
    with path.open("r+b") as file:
        file.seek(20 * MIB + 4096)
        file.write(os.urandom(9 * MIB + 123) + bytes(3 * MIB) + b"end" + tail)
    return path


@pytest.mark.parametrize("tail", [b"", bytes(4096 * 3), os.urandom(4096)])
def test_a_copy_is_the_file_on_another_one_and_its_sum_is_right(tmp_path: Path, tail: bytes) -> None:
    source, target = overlay(tmp_path / "o.qcow2", tail), tmp_path / "copy.qcow2"
    digest = copy_overlay(source, target, "../0001/disk0.qcow2")
    old, new = source.read_bytes(), target.read_bytes()
    assert digest == hashlib.sha256(new).hexdigest()
    assert (len(old), old[65536:]) == (len(new), new[65536:])
    assert read_header(target).backing_file == "../0001/disk0.qcow2"
    assert read_header(target).backing_format == "qcow2"
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.stat().st_blocks * 512 < source.stat().st_blocks * 512 - 2 * MIB


def test_a_file_that_ends_in_a_hole_keeps_its_length(tmp_path: Path) -> None:
    source = overlay(tmp_path / "o.qcow2")
    os.truncate(source, 64 * MIB + 1)
    digest = copy_overlay(source, tmp_path / "copy", "b.qcow2")
    assert (tmp_path / "copy").stat().st_size == 64 * MIB + 1
    assert digest == hashlib.sha256((tmp_path / "copy").read_bytes()).hexdigest()


def test_odd_sources_are_refused_and_nothing_is_overwritten(tmp_path: Path) -> None:
    source, target = overlay(tmp_path / "o.qcow2"), tmp_path / "copy"
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(OSError, match="link"):
        copy_overlay(tmp_path / "link", target, "b.qcow2")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="no plain file"):
        copy_overlay(tmp_path / "pipe", target, "b.qcow2")
    (tmp_path / "text").write_text("no image" * 10000)
    with pytest.raises(ImageError, match=r"cannot be put on b\.qcow2"):
        copy_overlay(tmp_path / "text", target, "b.qcow2")
    assert not target.exists()
    target.write_text("mine")
    with pytest.raises(FileExistsError):
        copy_overlay(source, target, "b.qcow2")
    assert target.read_text() == "mine"


def test_a_file_that_is_cut_while_it_is_copied_is_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = overlay(tmp_path / "o.qcow2")
    whole = backup_copy._written

    def cut(piece: bytes):
        os.truncate(source, 65536)
        return whole(piece)

    monkeypatch.setattr(backup_copy, "_written", cut)
    with pytest.raises(ImageError, match="changed its length"):
        copy_overlay(source, tmp_path / "copy", "b.qcow2")


def test_a_disk_that_does_not_take_what_was_written_is_heard_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, said = tmp_path / "file", []
    file.write_bytes(b"data")

    async def settled(fails: bool) -> None:
        settling = Settling(file, lambda text, fraction: said.append(fraction))
        settling.hear("copying", 0.5)
        await settling.left()
        if fails:
            monkeypatch.setattr(backup_copy, "sync_file", failing)
            settling = Settling(file, lambda text, fraction: None)
            settling.hear("copying", 0.5)
            await settling.left()
            with pytest.raises(OSError, match="error"):
                settling.hear("copying", 0.6)
        await settling.settled()

    def failing(path: Path) -> None:
        raise OSError(5, "Input/output error")

    run(settled(fails=False))
    assert said == [0.5]
    with pytest.raises(OSError, match="error"):
        run(settled(fails=True))
