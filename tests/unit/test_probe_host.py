"""The host probe reads this machine, recorded trees of real machines, and odd trees written on the spot."""

import os
from pathlib import Path

import pytest
from host_trees import RECORDED, Tree, recorded_folder, unpack

from tinamou.probe.cgroup import limits
from tinamou.probe.host import probe_host
from tinamou.system.rooted import Rooted, mask
from tinamou.units import CpuSet, Size

recorded = pytest.mark.skipif(
    recorded_folder() is None, reason="no recorded host trees; name a folder in TINAMOU_HOST_TREES"
)


def test_this_host():
    facts = probe_host()
    assert facts.online_cpus == CpuSet.parse(Path("/sys/devices/system/cpu/online").read_text())
    assert facts.usable_cpus >= os.sched_getaffinity(0)
    assert facts.arch == os.uname().machine
    assert 0 < facts.memory_available <= facts.memory
    assert facts.is_root == (os.geteuid() == 0)
    assert all(os.access(path, os.F_OK) for path in facts.tools.values())


@recorded
@pytest.mark.parametrize("name", RECORDED)
def test_recorded(name):
    facts = probe_host(str(unpack(name)))
    assert facts.arch
    for cpu in facts.cpus:
        assert cpu.number in cpu.siblings
        assert cpu.siblings <= facts.online_cpus or not cpu.online
    for level in {cache.level for cache in facts.caches}:
        for kind in ("Data", "Instruction", "Unified"):
            members = [n for c in facts.caches if (c.level, c.type) == (level, kind) for n in c.cpus]
            assert len(members) == len(set(members)), "a CPU cannot be in two caches of one kind"


@recorded
def test_recorded_details():
    def facts(name):
        return probe_host(str(unpack(name)))

    offline = facts("16em64t-4s2c2t-offlines")
    assert offline.online_cpus == CpuSet.parse("0-1,3-4,6-12,15")
    assert offline.cpus[6].siblings == {6}
    assert offline.cpus[0].siblings == {0, 8}
    power = facts("nvidiagpunumanodes")
    assert power.usable_cpus == CpuSet.parse("0-15")
    assert [n.number for n in power.nodes if not n.cpus] == [250, 251, 252, 253, 254, 255]
    assert power.distance(0, 8) == 40
    hybrid = facts("20em64t-hybrid-1p6c2t+2ca4co1t")
    assert {cpu.number for cpu in hybrid.cpus if cpu.capacity < 700} == set(range(12, 20))


def test_offline_and_limits(tmp_path):
    tree = Tree(tmp_path, packages=2, cores=4, threads=2, memory_gib=16)
    tree.write("/sys/devices/system/cpu/online", "0-6,8-15").write("/sys/devices/system/cpu/isolated", "2-3")
    tree.write("/proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-11\nMems_allowed_list:\t0")
    tree.hugepages(1, 2048, 512, 500)
    facts = probe_host(str(tmp_path))
    assert facts.online_cpus == CpuSet.parse("0-6,8-15")
    assert facts.usable_cpus == CpuSet.parse("0-6,8-11")
    assert not facts.cpus[7].online
    assert facts.cpus[15].siblings == {15}
    assert facts.isolated_cpus == {2, 3}
    assert facts.allowed_nodes == {0}
    assert facts.nodes[1].hugepages[2 << 20] == (512, 500)
    assert facts.thp == "madvise"


def test_cgroup_v2_limits(tmp_path):
    tree = Tree(tmp_path, cores=8)
    tree.write("/proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0")
    tree.write("/proc/self/cgroup", "0::/a.slice/b.scope")
    tree.write("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids")
    tree.write("/sys/fs/cgroup/a.slice/b.scope/cpuset.cpus.effective", "2-5")
    tree.write("/sys/fs/cgroup/a.slice/b.scope/memory.max", "max")
    tree.write("/sys/fs/cgroup/a.slice/memory.max", 2 << 30).write("/sys/fs/cgroup/a.slice/memory.current", 1 << 30)
    facts = probe_host(str(tmp_path))
    assert facts.usable_cpus == CpuSet.parse("2-5")
    assert facts.memory_limit == Size.parse("2G")
    assert facts.memory_available == Size.parse("1G")
    assert facts.cgroups["memory"] == "v2"


def test_cgroup_v1_limits(tmp_path):
    tree = Tree(tmp_path, cores=8)
    mounts = ["cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0", "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0"]
    tree.write("/proc/mounts", "\n".join(mounts)).write("/proc/self/cgroup", "4:memory:/x\n3:cpuset:/y\n0::/")
    tree.write("/sys/fs/cgroup/cpuset/y/cpuset.effective_cpus", "0-1").write(
        "/sys/fs/cgroup/cpuset/y/cpuset.effective_mems", "0"
    )
    tree.write("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", 9223372036854771712)
    found = limits(Rooted(str(tmp_path)))
    assert (found.cpus, found.nodes, found.memory) == ({0, 1}, {0}, None)
    assert found.controllers == {"cpuset": "v1", "memory": "v1"}


def test_nothing_there(tmp_path):
    facts = probe_host(str(tmp_path))
    assert (facts.cpus, facts.memory, facts.tools, facts.devices) == ((), 0, {}, frozenset())
    assert facts.nodes[0].number == 0


def test_mask():
    assert mask("00000000,00000101") == {0, 8}
    assert mask("1,00000000") == {32}
    assert mask("") == set()
