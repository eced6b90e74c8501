"""Backups of a real QEMU's disks to a real NBD server: full, incremental, read back, refused when they are damaged."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bare_machine import SIZE, BareMachine, live_write, run
from running import listens
from typed import eventually

from tinamou.errors import ImageError, StateError
from tinamou.snapshots.backup import standalone, verify
from tinamou.snapshots.backup_nbd import check_target, copy_to_nbd
from tinamou.snapshots.backup_shelf import Shelf, read_shelf
from tinamou.snapshots.create import create
from tinamou.snapshots.history import load

Build = Callable[..., BareMachine]


class Servers:
    """A qemu-nbd for each disk, on sockets ``DISK.sock``; every file is a little larger than the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []
        self.url = f"nbd+unix:///{{disk}}?socket={folder}/{{disk}}.sock"

    def start(self, *names: str, size: int = SIZE + (1 << 20)) -> None:
        for name in names:
            file = self.folder / f"{name}.raw"
            if not file.exists():
                file.write_bytes(b"\xee" * size)
            argv = ["qemu-nbd", "-t", "-f", "raw", "-x", name, "-k", str(self.folder / f"{name}.sock"), str(file)]
            self.running.append(subprocess.Popen(argv))
            eventually(lambda name=name: listens(self.folder / f"{name}.sock"), "the server")

    def stop(self) -> None:
        for one in self.running:
            one.terminate()
            one.wait()
        self.running.clear()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    folder = tmp_path / "nbd"
    folder.mkdir()
    made = Servers(folder)
    yield made
    made.stop()


def back_up(m: BareMachine, folder: Path, url: str, value: int, *, full: bool = False) -> Shelf:
    async def work() -> Shelf:
        async with m.session() as (session, disks):
            for disk in load(m.directory).present:
                await live_write(session, disk, value, f"{value * 64}k")
            await create(disks, load(m.directory))
            await live_write(session, "disk0", value + 100, f"{value * 64 + 32}k", "4k")
            taken = await create(disks, load(m.directory))
            return await copy_to_nbd(disks, taken.history, taken.snapshot, read_shelf(folder), {}, url, full=full)

    return run(work())


def test_full_then_incremental_verified_and_restored(machine: Build, servers: Servers, tmp_path: Path) -> None:
    m, folder = machine(count=2), tmp_path / "shelf"
    servers.start("disk0", "disk1")
    m.start()
    assert back_up(m, folder, servers.url, 1).backups[-1].kind == "full"
    with (servers.folder / "disk0.raw").open("rb") as file:
        assert file.read(1) == b"\xba"
    for value in (2, 3):
        shelf = back_up(m, folder, servers.url, value)
        assert [one.kind for one in shelf.backups] == ["incremental"]
        run(verify(shelf, shelf.find()))
    run(standalone(shelf, shelf.find(), "disk0", tmp_path / "restored.qcow2"))
    reader = machine(name="reader")
    for value in (1, 2, 3):
        assert reader.reads(tmp_path / "restored.qcow2", value, f"{value * 64}k", "32k")
        assert reader.reads(tmp_path / "restored.qcow2", value + 100, f"{value * 64 + 32}k", "4k")
    m.kill()
    top = m.directory / load(m.directory).disks["disk0"].top
    subprocess.run(["qemu-img", "compare", "-q", top, tmp_path / "restored.qcow2"], check=True)


def test_what_changed_on_the_server_is_noticed(machine: Build, servers: Servers, tmp_path: Path) -> None:
    m, folder = machine(), tmp_path / "shelf"
    servers.start("disk0")
    m.start()
    back_up(m, folder, servers.url, 1)
    with (servers.folder / "disk0.raw").open("r+b") as file:
        file.seek(3 << 20)
        file.write(b"damage")
    with pytest.raises(ImageError, match="damaged"):
        run(verify(read_shelf(folder), read_shelf(folder).find()))
    with pytest.raises(ImageError, match="does not hold what was written"):
        back_up(m, folder, servers.url, 2)
    assert read_shelf(folder).backups == ()
    assert back_up(m, folder, servers.url, 3).backups[-1].kind == "full"
    run(verify(read_shelf(folder), read_shelf(folder).find()))


def test_a_server_that_is_too_small_or_gone(machine: Build, servers: Servers, tmp_path: Path) -> None:
    m, folder = machine(), tmp_path / "shelf"
    servers.start("disk0", size=1 << 20)
    m.start()
    with pytest.raises(ImageError, match="too small"):
        back_up(m, folder, servers.url, 1)
    servers.stop()
    with pytest.raises(ImageError, match="cannot be opened"):
        back_up(m, folder, servers.url, 2)
    assert read_shelf(folder).backups == ()


@pytest.mark.parametrize(
    ("target", "disks"), [("http://host/x", 1), ("nbd:///x", 1), ("nbd+unix:///x", 1), ("nbd://host/x", 2)]
)
def test_targets_that_cannot_be(target: str, disks: int) -> None:
    with pytest.raises(StateError) as error:
        check_target(target, disks)
    assert error.value.problems[0].value == target
