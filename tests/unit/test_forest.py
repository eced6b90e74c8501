"""What a fork's disk rests on outside its folder is read by the rules of every image's chain."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinamou.errors import ImageError
from tinamou.snapshots.history import DiskEntry, History
from tinamou.snapshots.layers import Forest, read_forest
from tinamou.snapshots.machine_disks import Disks
from tinamou.system.qcow2 import write_overlay

SIZE = 1 << 20


def forest(state: Path, floor: Path, frozen: str) -> Forest:
    """A fork's disk: its own file, over the checkpoint's file named ``frozen``, over the image of its user."""
    floor.write_bytes(bytes(SIZE))
    machine = state / "machines/m"
    for folder in (machine, state / "checkpoints/moment"):
        folder.mkdir(parents=True, exist_ok=True)
    write_overlay(Path(frozen).resolve(), SIZE, str(floor), "raw")
    write_overlay(machine / "disk0.qcow2", SIZE, frozen, "qcow2")
    entry = DiskEntry("disk0-dev", "disk0.qcow2", "qcow2", str(floor), "raw")
    return read_forest(Disks(machine), History(disks={"disk0": entry}), "disk0")


def test_a_checkpoints_file_is_read_through(state, tmp_path):
    frozen, floor = f"{state}/checkpoints/moment/disk0.qcow2", tmp_path / "own.img"
    assert forest(state, floor, frozen).chain("disk0.qcow2") == ("disk0.qcow2", frozen, str(floor))


@pytest.mark.parametrize("by", ["its path", "a way out of the state", "a link"])
def test_a_file_elsewhere_is_not(state, tmp_path, by):
    elsewhere = tmp_path / "elsewhere.qcow2"
    frozen = {
        "its path": str(elsewhere),
        "a way out of the state": f"{state}/../..{elsewhere}",
        "a link": f"{state}/checkpoints/moment/disk0.qcow2",
    }[by]
    if by == "a link":
        Path(frozen).parent.mkdir(parents=True)
        Path(frozen).symlink_to(elsewhere)
    with pytest.raises(ImageError, match="outside its folder"):
        forest(state, tmp_path / "own.img", frozen)
