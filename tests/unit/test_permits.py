"""What a trial permits is used, what it refuses is refused with the reason, and what nobody tried is not relied on."""

import dataclasses
import os

import pytest
from host_trees import Tree, make_host
from made_facts import facts
from made_facts import host as made_host

from tinamou.errors import PlanError
from tinamou.facts import ChainFile, Permits
from tinamou.launch.argv import argv
from tinamou.parts.disk.aio import choose
from tinamou.parts.disk.spec import DiskSpec
from tinamou.planner import plan
from tinamou.probe.pci import devices_by_node
from tinamou.probe.permits import device_nodes, probe_permits
from tinamou.spec import load_spec
from tinamou.system import aio, threads
from tinamou.system.rooted import Rooted
from tinamou.units import Size

BOTH = Permits(io_uring="", native="")
BUSY = "kernel.io_uring_disabled is 2"


def permitted(permits, **host):
    return dataclasses.replace(facts(), permits=permits, **({"host": make_host(**host)} if host else {}))


@pytest.mark.parametrize(
    ("options", "permits", "way", "why"),
    [
        ({}, BOTH, "io_uring", "tried on this host"),
        ({"cache": "none"}, BOTH, "native", "tried on this host"),
        ({"cache": "none"}, Permits(io_uring="", native="full"), "io_uring", ""),
        ({}, Permits(io_uring=BUSY, native=""), "threads", BUSY),
        ({}, Permits(), "threads", ""),
        ({"aio": "threads"}, BOTH, "threads", ""),
        ({"aio": "io_uring"}, Permits(), "io_uring", ""),
    ],
)
def test_way_of_queueing(options, permits, way, why):
    found, said = choose(DiskSpec(size=Size.parse("1G"), **options), (), permitted(permits))
    assert found == way
    assert why in said
    spec = load_spec({"disk": [{"size": "1G", **options}]})
    assert f'"aio":"{way}"' in " ".join(argv(plan(spec, permitted(permits))))


def test_a_file_that_ends_within_a_sector_is_not_read_through_the_ring():
    odd = {"disk1": (ChainFile("/o.qcow2", "qcow2"), ChainFile("/d.raw", "raw", size=1000001, odd=True))}
    known = dataclasses.replace(permitted(BOTH), chains=odd)
    lines = " ".join(argv(plan(load_spec({"disk": [{"path": "/o.qcow2", "number": 1}]}), known)))
    assert lines.count('"aio":"threads"') == 2
    with pytest.raises(PlanError) as error:
        plan(load_spec({"disk": [{"path": "/o.qcow2", "number": 1, "aio": "io_uring"}]}), known)
    assert [(one.path, "never ends" in one.reason) for one in error.value.problems] == [("disk[0].aio", True)]


def test_discs_may_end_anywhere():
    lines = " ".join(argv(plan(load_spec({"disk": [{"path": "/a.iso", "interface": "cdrom"}]}), permitted(BOTH))))
    assert '"aio":"threads"' in lines


@pytest.mark.parametrize(
    ("disk", "permits", "field", "reason"),
    [
        ({"aio": "io_uring"}, Permits(io_uring=BUSY), "disk[0].aio", BUSY),
        ({"aio": "native", "cache": "none"}, Permits(native="full"), "disk[0].aio", "full"),
        (
            {"cache": "none"},
            Permits(direct={"/var/lib/tinamou/machines/web": "no O_DIRECT"}),
            "disk[0].cache",
            "no O_DIRECT",
        ),
    ],
)
def test_refused_ways(disk, permits, field, reason):
    with pytest.raises(PlanError) as caught:
        plan(load_spec({"disk": [{"size": "1G", **disk}]}), permitted(permits))
    (problem,) = caught.value.problems
    assert problem.path == field
    assert reason in problem.reason


def test_this_host_permits(tmp_path):
    found = probe_permits(queued=True, direct=[str(tmp_path)], real_time=True)
    assert None not in (found.io_uring, found.native, found.real_time)
    assert aio.uring_refusal(Rooted(str(Tree(tmp_path).write("/proc/sys/kernel/io_uring_disabled", 2).root))) == BUSY
    assert threads.priority(os.getpid()) == 0
    assert probe_permits() == Permits()


def realtime(count, permits, **more):
    spec = load_spec({"cpu": {"count": count, "pin": "auto", "realtime": 5}, "memory": "64M", **more})
    seen = permitted(permits, cores=4)
    return plan(spec, dataclasses.replace(seen, host=dataclasses.replace(seen.host, grouping=made_host().grouping)))


def test_real_time_priority():
    made = realtime(3, Permits(real_time=""))
    assert made.pinning.priority == 5
    assert any("run before everything else on CPUs 0-2" in note.text for note in made.notes)


@pytest.mark.parametrize(
    ("count", "permits", "more", "reason"),
    [
        (4, Permits(real_time=""), {}, "they hold all CPUs QEMU may use (0-3)"),
        (5, Permits(real_time=""), {}, "0 of 5 have one (usable here: 0-3)"),
        (1, Permits(real_time="RLIMIT_RTPRIO is 0"), {}, "RLIMIT_RTPRIO is 0"),
        (1, Permits(real_time="", real_time_in_groups="no share"), {"limits": {"cpu": 1}}, "no share"),
    ],
)
def test_real_time_refused(count, permits, more, reason):
    with pytest.raises(PlanError) as caught:
        realtime(count, permits, **more)
    (problem,) = caught.value.problems
    assert problem.path == "cpu.realtime"
    assert reason in problem.reason
    assert problem.fix


def test_beside_a_device(tmp_path):
    tree = Tree(tmp_path, packages=2)
    tree.write("/sys/bus/pci/devices/0000:65:00.0/numa_node", 1).write("/sys/bus/pci/devices/0000:65:00.0/class", "0x030200")
    tree.write("/sys/bus/pci/devices/0000:00:1f.0/numa_node", -1).write("/sys/block/nvme0n1/device/device/numa_node", 1)
    tree.write("/sys/class/net/eth0/device/numa_node", 0)
    names = ("0000:65:00.0", "0000:00:1f.0", "nvme0n1", "eth0", "eth1")
    found = device_nodes(Rooted(str(tmp_path)), names)
    assert found == {"0000:65:00.0": 1, "0000:00:1f.0": -1, "nvme0n1": 1, "eth0": 0}
    assert devices_by_node(Rooted(str(tmp_path))) == {1: ["0000:65:00.0 graphics"]}
    requested = {"cpu": {"count": 2, "pin": "auto", "near": "0000:65:00.0"}, "memory": "64M"}
    made = plan(load_spec(requested), permitted(Permits(device_nodes=found), nodes=2, cores=4))
    assert [str(cpus) for cpus in made.pinning.vcpus] == ["4", "5"]
    assert '"host-nodes":[1]' in " ".join(argv(made))
    with pytest.raises(PlanError, match="no device to sit beside"):
        plan(load_spec(requested), permitted(Permits()))
