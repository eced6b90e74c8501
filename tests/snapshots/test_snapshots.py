"""Snapshots of a real QEMU's disks and of a machine that is off: taken, gone back to, merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bare_machine import BareMachine, live_reads, live_write, run

from tinamou.errors import StateError
from tinamou.snapshots.create import create
from tinamou.snapshots.graph import attached, block_graph
from tinamou.snapshots.history import load
from tinamou.snapshots.merge import flatten, forget, tidy
from tinamou.snapshots.reconcile import reconcile
from tinamou.snapshots.revert import revert

Build = Callable[..., BareMachine]
pytestmark = pytest.mark.usefixtures("every_qemu")


def offline(machine: BareMachine, name: str) -> None:
    run(create(machine.disks, load(machine.directory), name))


def test_off_snapshots_keep_each_moment(machine: Build) -> None:
    m = machine(count=2)
    for value in (1, 2, 3):
        m.write("disk0", value)
        m.write("disk1", value + 10)
        offline(m, f"v{value}")
    m.write("disk0", 9)
    history = load(m.directory)
    for value, shot in zip((1, 2, 3), history.snapshots, strict=True):
        assert m.reads(shot.files["disk0"], value)
        assert m.reads(shot.files["disk1"], value + 10)
    assert m.reads(history.disks["disk0"].top, 9)
    assert [one.parent for one in history.snapshots] == [0, 1, 2]
    m.check()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_live_snapshots_keep_each_moment(machine: Build, count: int) -> None:
    m = machine(count=count)
    m.start()

    async def work() -> None:
        async with m.session() as (session, disks):
            for value in (1, 2, 3):
                for number in range(count):
                    await live_write(session, f"disk{number}", value + 10 * number)
                taken = await create(disks, await reconcile(disks), f"v{value}")
                assert taken.snapshot.files.keys() == {f"disk{number}" for number in range(count)}
            await live_write(session, "disk0", 99)
            assert await live_reads(session, "disk0", 99)

    run(work())
    m.kill()
    history = load(m.directory)
    for value, shot in zip((1, 2, 3), history.snapshots, strict=True):
        for number in range(count):
            assert m.reads(shot.files[f"disk{number}"], value + 10 * number)
    assert m.reads(history.disks["disk0"].top, 99)
    m.check()
    m.start()

    async def again() -> None:
        async with m.session() as (session, _):
            assert await live_reads(session, "disk0", 99)

    run(again())


def test_reverting_opens_a_branch(machine: Build) -> None:
    m = machine()
    m.write("disk0", 1)
    offline(m, "one")
    m.write("disk0", 2)
    offline(m, "two")
    m.write("disk0", 3)
    run(tidy(m.disks, revert(m.disks, load(m.directory), "one")))
    history = load(m.directory)
    assert m.reads(history.disks["disk0"].top, 1)
    assert history.current == 1
    assert not (m.directory / "disk0-2.qcow2").exists()
    m.write("disk0", 4)
    offline(m, "other")
    history = load(m.directory)
    assert [(one.name, one.parent) for one in history.snapshots] == [("one", 0), ("two", 1), ("other", 1)]
    assert m.reads(history.snapshot("two").files["disk0"], 2)
    run(tidy(m.disks, revert(m.disks, history, "two")))
    history = load(m.directory)
    assert m.reads(history.disks["disk0"].top, 2)
    assert m.reads(history.snapshot("other").files["disk0"], 4)
    m.check()


def test_a_running_machine_is_not_reverted(machine: Build) -> None:
    m = machine()
    offline(m, "one")
    m.start()

    async def work() -> None:
        async with m.session() as (_, disks):
            with pytest.raises(StateError, match="running machine"):
                revert(disks, load(m.directory), "one")

    run(work())


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("victim", ["one", "two", "three"])
@pytest.mark.parametrize("big", [0, 1, 2, 3])
def test_removing_keeps_what_everything_else_reads_as(machine: Build, live: bool, victim: str, big: int) -> None:
    m = machine()
    for value, name in enumerate(("one", "two", "three"), 1):
        m.write("disk0", value, f"{value * 64}k")
        m.write("disk0", value, "1M", "1M" if big == value else "64k")
        offline(m, name)
    m.write("disk0", 4, "256k")
    m.write("disk0", 4, "2M", "1M" if big == 3 else "64k")

    async def work() -> None:
        if not live:
            await tidy(m.disks, forget(m.disks, await reconcile(m.disks), victim))
            return
        async with m.session() as (session, disks):
            history = await tidy(disks, forget(disks, await reconcile(disks), victim))
            files = [disks.name(file) for file in (await attached(session))["disk0-dev"].files]
            assert files[0] == history.disks["disk0"].top
            assert len(files) == 4
            assert {name for name in (await block_graph(session)).nodes() if name.startswith(str(m.directory))} == {
                str(m.directory / name) for name in files[:-1]
            }
            assert len((await block_graph(session)).descriptors) == 4
            assert await live_reads(session, "disk0", 4, "256k")

    if live:
        m.start()
    run(work())
    m.kill()
    history = load(m.directory)
    assert [one.name for one in history.snapshots] == [name for name in ("one", "two", "three") if name != victim]
    for value, name in enumerate(("one", "two", "three"), 1):
        if name != victim:
            file = history.snapshot(name).files["disk0"]
            assert m.reads(file, value, f"{value * 64}k")
            assert m.reads(file, value, "1M")
            assert m.reads(file, 0xBA, f"{(value + 1) * 64}k")
    assert m.reads(history.disks["disk0"].top, 4, "256k")
    assert m.reads(history.disks["disk0"].top, 3, "1M")
    assert len(list(m.directory.glob("*.qcow2"))) == 3
    assert len(m.chain("disk0")) == 4
    m.check()


@pytest.mark.parametrize("live", [False, True])
def test_flattening_shortens_the_chain_and_keeps_snapshots(machine: Build, live: bool) -> None:
    m = machine()
    for value in range(1, 9):
        m.write("disk0", value, f"{value * 64}k")
        offline(m, f"v{value}")

    async def work() -> None:
        if not live:
            assert (await flatten(m.disks, load(m.directory), "disk0")).flattened
            return
        async with m.session() as (session, disks):
            flat = await flatten(disks, load(m.directory), "disk0")
            assert len((await attached(session))["disk0-dev"].files) == 3
            assert await flatten(disks, flat, "disk0") is flat
            await create(disks, load(m.directory), "after")

    if live:
        m.start()
    run(work())
    m.kill()
    assert len(m.chain("disk0")) == (4 if live else 3)
    for shot in load(m.directory).snapshots[:8]:
        assert m.reads(shot.files["disk0"], shot.number, f"{shot.number * 64}k")
    m.check()


def test_names_are_checked(machine: Build) -> None:
    m = machine()
    offline(m, "one")
    for name, message in (("one", "already"), ("7", "cannot be"), ("a/b", "cannot be")):
        with pytest.raises(StateError, match=message):
            offline(m, name)
    with pytest.raises(StateError, match="did you mean one"):
        load(m.directory).snapshot("ona")
    with pytest.raises(StateError, match="no disk"):
        run(create(replace(m.disks), replace(load(m.directory), disks={}), "x"))


def test_branches_are_merged_while_the_machine_runs(machine: Build) -> None:
    m = machine()
    for value, name in enumerate(("one", "two", "three"), 1):
        m.write("disk0", value, f"{value * 64}k")
        offline(m, name)
    run(tidy(m.disks, revert(m.disks, load(m.directory), "one")))
    m.write("disk0", 9, "512k")
    offline(m, "other")
    m.start()

    async def work() -> None:
        async with m.session() as (session, disks):
            await tidy(disks, forget(disks, await reconcile(disks), "two"))
            await live_write(session, "disk0", 8, "1M")
            await tidy(disks, forget(disks, await reconcile(disks), "one"))

    run(work())
    m.kill()
    history = load(m.directory)
    assert [one.name for one in history.snapshots] == ["three", "other"]
    for value in (1, 2, 3):
        assert m.reads(history.snapshot("three").files["disk0"], value, f"{value * 64}k")
    assert m.reads(history.snapshot("other").files["disk0"], 9, "512k")
    assert m.reads(history.snapshot("other").files["disk0"], 0xBA, "128k")
    assert m.reads(history.disks["disk0"].top, 8, "1M")
    m.check()


def test_a_limited_disk_keeps_limit_size_and_format(machine: Build) -> None:
    m = machine()
    m.start(limited=True)

    async def work() -> None:
        async with m.session() as (session, disks):
            await create(disks, load(m.directory), "one")
            await live_write(session, "disk0", 1)
            await create(disks, load(m.directory), "two")
            await live_write(session, "disk0", 2)
            await tidy(disks, forget(disks, load(m.directory), "one"))
            found = (await attached(session))["disk0-dev"]
            assert (found.node, found.top) == ("disk0-limit", Path(found.files[0]).stem)
            assert len(found.files) == 3

    run(work())
    m.kill()
    history = load(m.directory)
    assert m.reads(history.snapshot("two").files["disk0"], 1)
    assert m.reads(history.disks["disk0"].top, 2)
    m.check()


def test_a_chain_longer_than_names_qemu_can_say(machine: Build) -> None:
    """QEMU describes a node together with all below it, in at most 4,096 letters."""
    m = machine(count=2)
    m.start()

    async def work() -> None:
        async with m.session() as (session, disks):
            for number in range(60):
                await create(disks, load(m.directory), f"n{number}")
            found = (await attached(session))["disk1-dev"]
            assert [disks.name(file) for file in found.files[:2]] == ["disk1-60.qcow2", "disk1-59.qcow2"]
            assert len(found.files) == 62
            await live_write(session, "disk1", 7)
            await flatten(disks, load(m.directory), "disk1")
            assert len((await attached(session))["disk1-dev"].files) == 3
            assert await live_reads(session, "disk1", 7)

    run(work())
