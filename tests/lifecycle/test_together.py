"""What several commands do to one machine at the same time, and what is done to one that is off, is all there afterwards."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from leftovers import Leftovers
from typed import begin, call, eventually, tinamou

from tinamou.snapshots.history import Intent, load, save
from tinamou.state.record import change, read

pytestmark = pytest.mark.vm


def ended(process: subprocess.Popen[bytes]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    return out.decode()


def described(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(tinamou("show", name, "--json"))["spec"]
    return found


def test_a_card_added_while_another_command_boots_the_machine_stays(state: Path, leftovers: Leftovers) -> None:
    booting = begin("run", "-d", "--name", "m", "--net", "user", "--disk", "size=8M")
    folder = state / "machines/m"
    eventually(lambda: (record := read(folder)) is not None and record.running, "QEMU")
    card, disk = begin("net", "add", "m", "user"), begin("disk", "add", "m", "size=8M")
    assert {ended(card).split(",")[0].strip(), ended(disk).strip()} == {"net1", "disk1"}
    ended(booting)
    spec = described("m")
    assert len(spec["net"]) == 2 and len(spec["disk"]) == 2  # type: ignore[arg-type]
    drivers = "until [ -e /run/settled ]; do sleep 0.1; done; "
    count = ("exec", "m", "--", "sh", "-c", f"{drivers}ls /sys/class/net | grep -c eth")
    eventually(lambda: tinamou(*count).strip() == "2", "both cards in the guest")
    tinamou("rm", "-f", "m")
    assert leftovers.found() == []


def test_many_changes_at_once_are_all_there(leftovers: Leftovers) -> None:
    tinamou("run", "-d", "--name", "m", "--net", "user", "--disk", "size=8M")
    tinamou("stop", "m")
    adding = [begin(kind, "add", "m", what) for kind, what in [("net", "user"), ("disk", "size=8M")] * 3]
    for process in adding:
        ended(process)
    spec = described("m")
    assert len(spec["net"]) == 4 and len(spec["disk"]) == 4  # type: ignore[arg-type]
    tinamou("rm", "m")
    assert leftovers.found() == []


def test_two_starts_at_once_start_it_once(state: Path, leftovers: Leftovers) -> None:
    tinamou("run", "-d", "--name", "m", "--net", "none")
    tinamou("stop", "m")
    both = [begin("start", "m") for _ in range(2)]
    ends = [(process.communicate(timeout=300)[1].decode(), process.returncode) for process in both]
    assert sorted(status for _, status in ends) == [0, 118], ends
    [refused] = [said for said, status in ends if status]
    assert "in the hands of another command" in refused or "is running already" in refused or "is busy" in refused
    record = read(state / "machines/m")
    assert record is not None and record.running
    tinamou("rm", "-f", "m")
    assert leftovers.found() == []


def test_a_disk_of_a_machine_that_is_off_is_known_at_once(tmp_path: Path, leftovers: Leftovers) -> None:
    tinamou("run", "-d", "--name", "m", "--net", "none")
    tinamou("stop", "m")
    assert tinamou("disk", "add", "m", "size=8M").strip() == "disk0"
    assert [row["name"] for row in json.loads(tinamou("disk", "ls", "m", "--json"))] == ["disk0"]
    tinamou("disk", "resize", "m", "disk0", "16M")
    tinamou("snapshot", "create", "m", "first")
    tinamou("backup", "create", "m", str(tmp_path / "backup"))
    tinamou("check", "m")
    tinamou("start", "m")
    assert tinamou("exec", "m", "--", "cat", "/sys/block/vda/size").strip() == str((16 << 20) // 512)
    tinamou("rm", "-f", "m")
    assert leftovers.found() == []


def test_a_machine_with_an_unfinished_change_of_its_disks_is_checked_and_started(state: Path, leftovers: Leftovers) -> None:
    """As a crash leaves it: the intent is written down, and nothing of it done."""
    tinamou("run", "-d", "--name", "m", "--net", "none", "--disk", "size=8M")
    tinamou("stop", "m")
    tinamou("snapshot", "create", "m", "first")
    folder = state / "machines/m"
    history = load(folder)
    save(folder, type(history)(**{**vars(history), "intent": Intent("disk", {"disk": "disk7"})}))
    tinamou("check", "m")
    tinamou("start", "m")
    assert load(folder).intent is None
    tinamou("rm", "-f", "m")
    assert leftovers.found() == []


def test_schedules_go_with_their_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers) -> None:
    units = tmp_path / "units"
    monkeypatch.setenv("TINAMOU_UNITS", str(units))
    tinamou("run", "-d", "--name", "m", "--net", "none", "--disk", "size=8M")
    tinamou("snapshot", "schedule", "m", "--every", "hourly")
    assert len(list(units.iterdir())) == 2
    tinamou("rm", "-f", "m")
    assert list(units.iterdir()) == []
    tinamou("run", "-d", "--name", "bare", "--net", "none")
    refused = call("snapshot", "schedule", "bare", "--every", "hourly")
    assert refused.returncode == 118 and "has no disks" in refused.stderr
    tinamou("rm", "-f", "bare")
    assert leftovers.found() == []


def test_a_guest_that_takes_long_is_left_running(leftovers: Leftovers) -> None:
    done = call("run", "-d", "--name", "slow", "--net", "none", "--timeout", "0.2")
    assert done.returncode == 0 and done.stdout.strip() == "slow", done.stderr
    assert "has not answered" in done.stderr and "It goes on" in done.stderr
    tinamou("rm", "-f", "slow")
    quiet = call("run", "-d", "--name", "quiet", "--net", "none", "--no-wait")
    assert quiet.returncode == 0 and "has not answered" not in quiet.stderr
    tinamou("rm", "-f", "quiet")
    assert leftovers.found() == []


def test_a_damaged_record_is_removed_by_force_and_harms_nobody(state: Path, leftovers: Leftovers) -> None:
    for name in ("m", "other"):
        tinamou("run", "-d", "--name", name, "--net", "none", "--no-wait")
    record = read(state / "machines/m")
    assert record is not None
    change(record, image="x")
    (state / "machines/m/machine.json").write_text("{")
    assert call("rm", "m").returncode == 118
    assert json.loads(tinamou("show", "other", "--json"))["state"] == "running"
    tinamou("rm", "-f", "m", "other")
    assert not (state / "machines/m").exists() and not record.running
    assert leftovers.found() == []
