"""The file system of a machine's disks fills up during each operation: the chain stays whole, and with space it goes on."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bare_machine import BareMachine, live_reads, live_write, run

from tinamou.errors import TinamouError
from tinamou.snapshots.check import check
from tinamou.snapshots.create import create
from tinamou.snapshots.history import load
from tinamou.snapshots.machine_disks import Disks
from tinamou.snapshots.merge import flatten, forget, tidy
from tinamou.snapshots.reconcile import reconcile
from tinamou.snapshots.revert import revert

pytestmark = pytest.mark.root
Build = Callable[..., BareMachine]


@pytest.fixture
def small(tmp_path: Path, machine: Build) -> Iterator[BareMachine]:
    """A machine with four snapshots of 1 MiB each, on a file system of 32 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], check=True)
    try:
        m = machine(name="small/m")
        for value in range(1, 5):
            m.write("disk0", value, f"{value * 512}k", "512k")
            m.write("disk0", value, "0", "64k")
            run(create(m.disks, load(m.directory), f"v{value}"))
        yield m
        m.kill()
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(m: BareMachine, leave: int) -> Path:
    """Take all space but ``leave`` KiB."""
    ballast = m.directory.parent / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 12))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        file.truncate(max(0, file.tell() - leave * 1024))
    return ballast


def whole(m: BareMachine) -> None:
    assert [one for one in run(check(m.disks, load(m.directory))) if one.severity == "error"] == []
    for shot in load(m.directory).snapshots[:4]:
        assert m.reads(shot.files["disk0"], shot.number, f"{shot.number * 512}k", "512k")


async def one(kind: str, disks: Disks) -> None:
    history = await reconcile(disks)
    if kind == "create":
        await create(disks, history, "new")
    elif kind == "rm":
        known = any(shot.name == "v2" for shot in history.snapshots)
        await tidy(disks, forget(disks, history, "v2") if known else history)
    elif kind == "flatten":
        for disk in history.disks:
            await flatten(disks, history, disk)
    else:
        await tidy(disks, revert(disks, history, "v3"))


@pytest.mark.parametrize("leave", [0, 8, 300])
@pytest.mark.parametrize("kind", ["create", "rm", "flatten", "revert"])
@pytest.mark.parametrize("live", [False, True])
def test_full_during(small: BareMachine, kind: str, live: bool, leave: int) -> None:
    if live and kind == "revert":
        pytest.skip("a running machine is not reverted")
    if live:
        small.start()

    async def attempt() -> bool:
        if not live:
            return await _tries(kind, small.disks)
        async with small.session() as (session, disks):
            done = await _tries(kind, disks)
            assert await live_reads(session, "disk0", 4)
            return done

    ballast = fill(small, leave)
    done = run(attempt())
    ballast.unlink()
    assert done or run(attempt())

    async def write_on() -> None:
        async with small.session() as (session, _):
            await live_write(session, "disk0", 9, "3M")
            assert await live_reads(session, "disk0", 9, "3M")

    if live:
        run(write_on())
    small.kill()
    run(reconcile(small.disks))
    if kind in ("rm", "revert"):
        names = [shot.name for shot in load(small.directory).snapshots]
        assert ("v2" in names) == (kind != "rm")
        assert [one for one in run(check(small.disks, load(small.directory))) if one.severity == "error"] == []
    else:
        whole(small)


async def _tries(kind: str, disks: Disks) -> bool:
    try:
        await one(kind, disks)
    except (TinamouError, OSError):
        return False
    return True
