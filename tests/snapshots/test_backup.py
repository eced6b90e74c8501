"""Backups of a real QEMU's disks: full, incremental, verified, and refused when they are damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bare_machine import BareMachine, live_write, run

from tinamou.errors import ImageError, StateError
from tinamou.machine.snapshots import _flatten_deep
from tinamou.snapshots import backup_shelf, merge
from tinamou.snapshots.backup import copy_out, standalone, verify
from tinamou.snapshots.backup_shelf import Shelf, read_shelf
from tinamou.snapshots.create import create
from tinamou.snapshots.history import load
from tinamou.snapshots.machine_disks import Disks
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


@pytest.mark.parametrize("live", [False, True])
def test_few_files_are_left_unmerged_between_backups_and_all_reads_the_same(
    machine: Build, live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "_SPARED", 3)
    m, counts = machine(), []

    async def step(disks: Disks, value: int) -> None:
        history = (await create(disks, load(m.directory), schedule="backup:here")).history
        for old in history.snapshots[:-1]:
            history = forget(disks, history, str(old.number))
        await tidy(disks, history, sparing=True)
        counts.append(len(list(m.directory.glob("disk0*.qcow2"))))

    async def live_steps() -> None:
        async with m.session() as (session, disks):
            for value in range(1, 8):
                await live_write(session, "disk0", value, f"{value * 64}k", "4k")
                await step(disks, value)

    if live:
        m.start()
        run(live_steps())
        m.kill()
    for value in range(1, 8) if not live else ():
        m.write("disk0", value, f"{value * 64}k", "4k")
        run(step(m.disks, value))
    assert counts == [2, 3, 4, 5, 2, 3, 4]
    top = load(m.directory).disks["disk0"].top
    assert all(m.reads(top, value, f"{value * 64}k", "4k") for value in range(1, 8))
    m.check()
    run(tidy(m.disks, load(m.directory)))
    assert len(list(m.directory.glob("disk0*.qcow2"))) == 2
    assert all(m.reads(load(m.directory).disks["disk0"].top, value, f"{value * 64}k", "4k") for value in range(1, 8))


def test_what_was_written_much_of_is_not_left_unmerged(machine: Build) -> None:
    m = machine()
    for value in (1, 2, 3):
        m.write("disk0", value, "0", "1M")
        history = run(create(m.disks, load(m.directory))).history
        for old in history.snapshots[:-1]:
            history = forget(m.disks, history, str(old.number))
        run(tidy(m.disks, history, sparing=True))
        assert len(list(m.directory.glob("disk0*.qcow2"))) == 2
    assert m.reads(load(m.directory).disks["disk0"].top, 3, "0", "1M")


def test_a_full_one_where_a_disk_would_be_read_through_too_many_files(
    machine: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_shelf, "MAX_DEPTH", 3)
    m = machine()
    m.start()
    kinds = [back_up(m, tmp_path / "shelf", value).backups[-1].kind for value in (1, 2, 3, 4)]
    assert kinds == ["full", "incremental", "full", "incremental"]


def test_what_backups_left_is_merged_before_a_deep_chain_is_flattened(machine: Build) -> None:
    m = machine()
    for value in (1, 2, 3, 4):
        m.write("disk0", value, f"{value * 64}k", "4k")
        history = run(create(m.disks, load(m.directory), schedule="backup:here")).history
        for old in history.snapshots[:-1]:
            history = forget(m.disks, history, str(old.number))
        run(tidy(m.disks, history, sparing=True))
    assert len(m.chain("disk0")) == 6
    run(_flatten_deep(m.disks, load(m.directory), 3))
    after = load(m.directory)
    assert (len(m.chain("disk0")), after.flattened, len(after.snapshots)) == (3, (), 1)
    assert after.snapshots[0].files["disk0"] in [path.name for path in m.chain("disk0")]
    assert all(m.reads(after.disks["disk0"].top, value, f"{value * 64}k", "4k") for value in (1, 2, 3, 4))
