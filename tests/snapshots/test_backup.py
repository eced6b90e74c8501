"""Backups of a real QEMU's disks: full, incremental, verified, and refused when they are damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bare_machine import BareMachine, live_write, run

from tinamou.errors import ImageError, StateError
from tinamou.snapshots.backup import copy_out, standalone, verify
from tinamou.snapshots.backup_shelf import Shelf, read_shelf
from tinamou.snapshots.create import create
from tinamou.snapshots.history import load
from tinamou.snapshots.merge import flatten, forget, tidy

Build = Callable[..., BareMachine]
pytestmark = pytest.mark.usefixtures("every_qemu")


def back_up(m: BareMachine, folder: Path, value: int, *, full: bool = False) -> Shelf:
    async def work() -> Shelf:
        async with m.session() as (session, disks):
            await live_write(session, "disk0", value, f"{value * 64}k")
            taken = await create(disks, load(m.directory))
            return await copy_out(disks, taken.history, taken.snapshot, read_shelf(folder), {}, full=full)

    return run(work())


@pytest.fixture
def shelf(machine: Build, tmp_path: Path) -> Shelf:
    m = machine(count=2)
    m.start()
    for value in (1, 2, 3):
        back_up(m, tmp_path / "shelf", value)
    return read_shelf(tmp_path / "shelf")


def test_full_then_incremental_restored_alone(machine: Build, shelf: Shelf, tmp_path: Path) -> None:
    assert [one.kind for one in shelf.backups] == ["full", "incremental", "incremental"]
    reader = machine(name="reader")
    for backup in shelf.backups:
        run(verify(shelf, backup))
        target = tmp_path / f"restored-{backup.number}.qcow2"
        run(standalone(shelf, backup, "disk0", target))
        for value in (1, 2, 3):
            assert reader.reads(target, value if value <= backup.number else 0xBA, f"{value * 64}k")


def test_a_full_one_where_the_chain_no_longer_tells(machine: Build, tmp_path: Path) -> None:
    m = machine()
    m.start()
    back_up(m, tmp_path / "shelf", 1)
    back_up(m, tmp_path / "shelf", 2)

    async def shorten() -> None:
        async with m.session() as (_, disks):
            await flatten(disks, load(m.directory), "disk0")
            history = load(m.directory)
            await tidy(disks, forget(disks, history, "s1"))

    run(shorten())
    assert back_up(m, tmp_path / "shelf", 3).backups[-1].kind in ("full", "incremental")
    assert back_up(m, tmp_path / "shelf", 4, full=True).backups[-1].kind == "full"
    for backup in read_shelf(tmp_path / "shelf").backups:
        run(verify(read_shelf(tmp_path / "shelf"), backup))


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "below"])
def test_damage_is_found_and_named(shelf: Shelf, damage: str) -> None:
    newest = shelf.find()
    folder = shelf.folder / ("0001" if damage == "below" else "0003")
    file = next(folder.glob("disk0*.qcow2"))
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    with pytest.raises(ImageError, match=str(file)):
        run(verify(shelf, newest))


def test_an_unknown_number_and_a_damaged_list(shelf: Shelf) -> None:
    with pytest.raises(StateError, match="no backup 9"):
        shelf.find(9)
    (shelf.folder / "backup.json").write_text("{")
    with pytest.raises(StateError, match="damaged"):
        read_shelf(shelf.folder)
