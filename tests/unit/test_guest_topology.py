"""The guest is shown the clusters and shared caches it was given, as far as board and QEMU can show them."""

import dataclasses

import pytest
import recorded
from host_trees import make_host
from made_facts import TINY, facts, of_arch

from tinamou.facts import Cache
from tinamou.launch.argv import argv
from tinamou.planner import plan
from tinamou.spec import load_spec
from tinamou.units import CpuSet, Size

PAIRS = tuple(Cache(2, "Unified", Size.parse("2M"), CpuSet({n, n + 1})) for n in range(0, 16, 2))


def words(version, arch, *, clusters=()):
    """``-smp`` and the options of ``-machine`` of a machine with 8 CPUs on two dies of four cores, which share in pairs."""
    host = make_host(caches=2, cores=8)
    pairs = () if clusters else PAIRS
    cpus = tuple(dataclasses.replace(cpu, cluster=cpu.number // 2 if clusters else -1) for cpu in host.cpus)
    host = dataclasses.replace(host, caches=(*pairs, *host.caches), cpus=cpus)
    known = facts(of_arch(TINY, arch))
    known = dataclasses.replace(known, host=host, qemu=recorded.qemu(version, arch))
    line = argv(plan(load_spec({"cpu": {"count": 8, "pin": "0-3,8-11"}}), known))
    return line[line.index("-smp") + 1], line[line.index("-machine") + 1]


@pytest.mark.parametrize(
    ("version", "arch", "smp", "shared"),
    [
        ("10.0", "x86_64", "8,sockets=1,dies=2,modules=2,cores=2,threads=1", True),
        ("7.2", "x86_64", "8,sockets=1,dies=2,cores=4,threads=1", False),
        ("10.0", "aarch64", "8,sockets=1,clusters=4,cores=2,threads=1", False),
        ("10.0", "riscv64", "8,sockets=1,cores=8,threads=1", False),
    ],
)
def test_shared_caches(version, arch, smp, shared):
    shown, machine = words(version, arch)
    assert shown == smp
    assert ("smp-cache.0.cache=l2,smp-cache.0.topology=module" in machine) is shared


def test_clusters_without_a_cache():
    assert words("10.0", "x86_64", clusters=True)[0] == "8,sockets=1,dies=2,modules=2,cores=2,threads=1"
    assert "smp-cache" not in words("10.0", "x86_64", clusters=True)[1]
