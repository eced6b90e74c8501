"""Every kind of damage to a machine's disks is found and named."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bare_machine import SIZE, BareMachine, run

from tinamou.errors import ImageError
from tinamou.facts import ImageFacts
from tinamou.images.seal import check_seals
from tinamou.machine.chains import existing_chains, refuse_shared
from tinamou.snapshots.check import DiskFinding, check, last_results, repair
from tinamou.snapshots.create import create
from tinamou.snapshots.history import load, save
from tinamou.spec import load_spec
from tinamou.system.landlock import abi
from tinamou.system.qcow2 import write_overlay

Build = Callable[..., BareMachine]


@pytest.fixture
def m(machine: Build) -> BareMachine:
    m = machine()
    for value in (1, 2):
        m.write("disk0", value)
        run(create(m.disks, load(m.directory), f"v{value}"))
    m.write("disk0", 3)
    return m


def findings(m: BareMachine, severity: str = "error") -> list[DiskFinding]:
    return [one for one in run(check(m.disks, load(m.directory))) if one.severity == severity]


def the_one(m: BareMachine, severity: str = "error") -> DiskFinding:
    found = findings(m, severity)
    assert found
    return found[0]


def test_whole_disks_are_whole(m: BareMachine) -> None:
    assert run(check(m.disks, load(m.directory))) == []
    kept = last_results(m.directory)
    assert kept is not None
    assert kept["findings"] == []


def test_a_truncated_file(m: BareMachine) -> None:
    with (m.directory / "disk0-1.qcow2").open("r+b") as file:
        file.truncate(5 * 65536)
    assert the_one(m).file == "disk0-1.qcow2"


@pytest.mark.parametrize(("offset", "value"), [(0, b"X"), (4, b"\x09"), (20, b"\xff"), (40, b"\x11" * 8), (48, b"\0" * 8)])
def test_a_flipped_header(m: BareMachine, offset: int, value: bytes) -> None:
    with (m.directory / "disk0-1.qcow2").open("r+b") as file:
        file.seek(offset)
        file.write(value)
    assert "disk0-1.qcow2" in the_one(m).file


def test_a_missing_backing_file(m: BareMachine) -> None:
    (m.directory / "disk0-1.qcow2").unlink()
    assert "disk0-1.qcow2" in the_one(m).file


def test_a_missing_base(m: BareMachine) -> None:
    (m.directory.parent / "base.raw").unlink()
    assert "base.raw" in the_one(m).file


def test_a_loop(m: BareMachine) -> None:
    command = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "disk0-2.qcow2", "-F", "qcow2", "disk0.qcow2"]
    subprocess.run(command, check=True, cwd=m.directory)
    assert "loop" in the_one(m).what


@pytest.mark.parametrize("behind", ["disk0-1.qcow2", "/etc/shadow"])
def test_a_file_behind_the_lowest_one(machine: Build, behind: str) -> None:
    m = machine()
    (m.directory / "disk0.qcow2").unlink()
    write_overlay(m.directory / "disk0.qcow2", SIZE)
    lowest = replace(load(m.directory).disks["disk0"], floor="disk0.qcow2", floor_format="qcow2")
    save(m.directory, replace(load(m.directory), disks={"disk0": lowest}))
    run(create(m.disks, load(m.directory), "v1"))
    assert findings(m) == []
    kind = "raw" if behind.startswith("/") else "qcow2"
    command = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", behind, "-F", kind, "disk0.qcow2"]
    subprocess.run(command, check=True, cwd=m.directory)
    assert the_one(m).file.endswith("disk0.qcow2")
    assert behind in the_one(m).what


def test_a_backing_file_swapped_for_another(m: BareMachine) -> None:
    assert findings(m) == []
    (m.directory.parent / "base.raw").write_bytes(b"\x77" * SIZE)
    assert the_one(m).file.endswith("base.raw")


def test_a_copy_of_the_base_is_as_good(m: BareMachine) -> None:
    assert findings(m) == []
    base = m.directory.parent / "base.raw"
    base.write_bytes(base.read_bytes())
    assert findings(m) == []


def test_an_own_file_swapped_for_another(m: BareMachine) -> None:
    base = str(m.directory.parent / "base.raw")
    for number in (1, 2):
        m.write("disk0", 5)
        run(create(m.disks, load(m.directory), f"w{number}"))
    (m.directory / "disk0-2.qcow2").unlink()
    write_overlay(m.directory / "disk0-2.qcow2", SIZE, base, "raw")
    assert "does not rest on" in the_one(m).what


def test_a_planted_backing_file(m: BareMachine) -> None:
    (m.directory / "disk0.qcow2").unlink()
    write_overlay(m.directory / "disk0.qcow2", SIZE, "/etc/shadow", "raw")
    assert "/etc/shadow" in the_one(m).what


def test_a_planted_data_file(m: BareMachine) -> None:
    (m.directory / "disk0-1.qcow2").unlink()
    options = "data_file=/etc/hostname,data_file_raw=off"
    command = [
        "qemu-img",
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        options.split(",")[0].replace("/etc", str(m.directory)),
        "disk0-1.qcow2",
    ]
    subprocess.run([*command, str(SIZE)], check=True, cwd=m.directory)
    assert "data" in the_one(m).what


def test_a_file_written_by_another_process(m: BareMachine) -> None:
    m.start()
    m.up()
    found = the_one(m)
    assert "qemu-system" in found.what
    m.kill()
    assert findings(m) == []


def test_a_foreign_file_is_noted(m: BareMachine) -> None:
    write_overlay(m.directory / "stray.qcow2", SIZE)
    assert the_one(m, "note").file == "stray.qcow2"


def test_a_leak_is_repaired_and_a_copy_kept(m: BareMachine) -> None:
    path = m.directory / "disk0-1.qcow2"
    with path.open("r+b") as file:
        file.seek(2 * 65536 + 2 * 40)
        file.write(struct.pack(">H", 1))
        file.truncate(41 * 65536)
    found = the_one(m, "warning")
    assert found.file == "disk0-1.qcow2"
    copy = run(repair(m.disks, found.file))
    assert copy.exists()
    assert findings(m, "warning") == []
    assert m.reads("disk0-2.qcow2", 3)


def test_a_seal_tells_change_from_touch(tmp_path: Path) -> None:
    file, record = tmp_path / "base", tmp_path / "seals.json"
    file.write_bytes(bytes(1 << 20))
    check_seals(record, [str(file)])
    file.touch()
    check_seals(record, [str(file)])
    file.write_bytes(bytes(1 << 20)[:-1] + b"x" * 4096)
    with pytest.raises(ImageError, match="not the file"):
        check_seals(record, [str(file)])


def test_an_unknown_history_is_told(m: BareMachine) -> None:
    history = load(m.directory)
    disk = history.disks["disk0"]
    save(m.directory, replace(history, disks={"disk0": replace(disk, floor=str(m.directory.parent / "other.raw"))}))
    (m.directory.parent / "other.raw").write_bytes(bytes(SIZE))
    assert findings(m)


def _truncate(m: BareMachine) -> str:
    with (m.directory / "disk0-2.qcow2").open("r+b") as file:
        file.truncate(5 * 65536)
    return "disk0-2.qcow2"


def _flip(m: BareMachine) -> str:
    with (m.directory / "disk0-1.qcow2").open("r+b") as file:
        file.seek(4)
        file.write(b"\x09")
    return "disk0-1.qcow2"


def _lose(m: BareMachine) -> str:
    (m.directory / "disk0-1.qcow2").unlink()
    return "disk0-1.qcow2"


def _loop(m: BareMachine) -> str:
    command = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "disk0-2.qcow2", "-F", "qcow2", "disk0.qcow2"]
    subprocess.run(command, check=True, cwd=m.directory)
    return "loop"


def _plant_backing(m: BareMachine) -> str:
    (m.directory / "disk0-1.qcow2").unlink()
    write_overlay(m.directory / "disk0-1.qcow2", SIZE, "/etc/shadow", "raw")
    return "/etc/shadow"


def _plant_data(m: BareMachine) -> str:
    (m.directory / "disk0-1.qcow2").unlink()
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=secret.raw", "disk0-1.qcow2", str(SIZE)]
    subprocess.run(command, check=True, cwd=m.directory)
    return "another file"


def _swap(m: BareMachine) -> str:
    (m.directory.parent / "base.raw").write_bytes(b"\x77" * SIZE)
    return "base.raw"


@pytest.mark.parametrize("damage", [_truncate, _flip, _lose, _loop, _plant_backing, _plant_data, _swap])
def test_damage_and_attacks_are_refused_before_a_start(m: BareMachine, damage: Callable[[BareMachine], str]) -> None:
    spec, image = load_spec({"disk": [{"size": "4M"}]}), ImageFacts(name="none", arch="x86_64", boots=("direct",))
    assert Path(existing_chains(spec, image, m.directory)["disk0"][0].path).name == "disk0-2.qcow2"
    named = damage(m)
    with pytest.raises(ImageError) as error:
        existing_chains(spec, image, m.directory)
    assert named in str(error.value)


def test_a_disk_open_elsewhere_is_refused_before_a_start(m: BareMachine) -> None:
    spec, image = load_spec({"disk": [{"size": "4M"}]}), ImageFacts(name="none", arch="x86_64", boots=("direct",))
    chains = existing_chains(spec, image, m.directory)
    refuse_shared(chains)
    m.start()
    m.up()
    with pytest.raises(ImageError, match=r"disk0-2\.qcow2 is open for writing"):
        refuse_shared(chains)


@pytest.mark.root
def test_who_walks_a_file_has_no_rights(m: BareMachine, tmp_path: Path) -> None:
    """A QEMU that was taken over writes its machine's disks: what reads them then could be taken over in its turn."""
    program = tmp_path / "qemu-img"
    program.write_text("#!/bin/sh\nid -u >&2; cat /etc/shadow >&2 || echo refused >&2; exit 2\n")
    program.chmod(0o755)
    disks = replace(m.disks, qemu_img=str(program))
    for what in (one.what for one in run(check(disks, load(m.directory))) if one.severity == "error"):
        assert not what.startswith("0;") and "root:" not in what
    with pytest.raises(ImageError) as caught:
        run(repair(disks, "disk0-1.qcow2"))
    assert "root:" not in str(caught.value) and (not abi() or "refused" in str(caught.value))
