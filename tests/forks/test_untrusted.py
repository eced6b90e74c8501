"""Running code one does not trust: limits, time, network and output of forks, with real guests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typed import call, tinamou

from tinamou import Machine, Pool
from tinamou.machine.checkpoints import every
from tinamou.snapshots.resting import discard

pytestmark = pytest.mark.vm


@pytest.fixture(autouse=True)
def kept_nothing() -> Iterator[None]:
    """Checkpoints stay when machines go; a test's own must not."""
    yield
    for one in every():
        discard(Path(one.directory))


def groups_of(pid: int) -> set[str]:
    """The names of a process's control groups that are tinamou's."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {line.rpartition("/tinamou/")[2] for line in lines if "/tinamou/" in line}


def folders_of(group: str) -> list[Path]:
    """Where such a group is in the hierarchies, both versions."""
    return [*Path("/sys/fs/cgroup").glob(f"*/tinamou/{group}"), *Path("/sys/fs/cgroup").glob(f"tinamou/{group}")]


def bound_of(group: Path) -> int:
    """The most memory a group may use; 0 where its hierarchy has no memory controller."""
    files = [group / name for name in ("memory.max", "memory.limit_in_bytes") if (group / name).exists()]
    return int(files[0].read_text()) if files else 0


@pytest.mark.root
@pytest.mark.parametrize("limits", [{"cpu": 0.8, "memory": "900M"}, {}])
def test_every_fork_has_a_group_of_its_own_and_gives_it_back(limits: dict[str, object]) -> None:
    with Machine(forkable=True, limits=limits) as source, source.fork(2) as forks:
        groups = [groups_of(one.record.pid) for one in (source, *forks)]
        assert [len(one) for one in groups] == [1, 1, 1]
        names = set.union(*groups)
        assert len(names) == 3
        (bound,) = {bound_of(folder) for name in names for folder in folders_of(name)} - {0}
        assert bound == 900 << 20 if limits else 512 << 20 < bound < 2048 << 20
        assert [one.run("echo on").text for one in forks] == ["on", "on"]
    assert [folder for name in names for folder in folders_of(name)] == []


def test_warm_machines_and_pools_have_no_network_unless_it_is_asked_for() -> None:
    with Machine(warm=True) as apart:
        assert apart.run("ls /sys/class/net").text == "lo"
    with Pool(size=1) as pool, pool.take() as taken:
        assert taken.run("ls /sys/class/net").text == "lo"
    assert tinamou("run", "--warm", "--", "ls", "/sys/class/net") == "lo\n"
    look = "until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done; ls /sys/class/net"
    assert tinamou("run", "--warm", "--net", "user", "--", "sh", "-c", look) == "eth0\nlo\n"


def test_a_command_that_takes_too_long_is_ended_with_its_machine() -> None:
    done = call("run", "--warm", "--time-limit", "2", "--", "sh", "-c", "trap '' TERM INT; sleep 600")
    assert done.returncode == 124
    assert "did not end within 2 s" in done.stderr
    assert tinamou("run", "--time-limit", "100", "--", "true") == ""


def test_endless_output_is_cut() -> None:
    with Machine(warm=True) as machine:
        done = machine.run("head -c 20000000 /dev/zero; echo end >&2")
    assert (len(done.stdout), done.truncated, done.stderr) == (16 << 20, True, b"end\n")
