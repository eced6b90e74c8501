"""Inside the lab: real KVM, two memory nodes, 1 GiB pages, control groups of version 2."""

import json
import re
import shutil
from pathlib import Path

import pytest
from typed import call, tinamou

from tinamou.doctor.examine import examine_one
from tinamou.doctor.this_host import this_host
from tinamou.probe.host import probe_host
from tinamou.system import threads
from tinamou.system.hugetlb import Pool
from tinamou.units import CpuSet, Size

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


@pytest.fixture
def machine():
    def start(*more):
        tinamou("run", "--name", "inner", "-d", "--accel", "kvm", "--timeout", "500", *more)
        return json.loads(tinamou("show", "inner", "--json"))

    yield start
    call("rm", "-f", "inner")


def test_kvm_works_by_trial(trial):
    best = trial.best()
    assert best is not None
    assert best.accel == "kvm", trial


def test_linux_runs_under_kvm():
    plan = json.loads(tinamou("plan", "--json"))
    assert plan["accel"] == "kvm"
    assert "host" in plan["argv"][plan["argv"].index("-cpu") + 1]
    assert tinamou("run", "--timeout", "500", "--", "uname", "-s").strip() == "Linux"


def numa_maps(pid):
    """Policy → pages per node of guest memory (source: proc_pid_numa_maps(5))."""
    found = {}
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        if "memfd:memory-backend" in line or "bind:" in line:
            policy = line.split()[1]
            for node, pages in re.findall(r"N(\d+)=(\d+)", line):
                found.setdefault(policy, {}).setdefault(int(node), 0)
                found[policy][int(node)] += int(pages)
    return found


def test_pinned_across_two_nodes_with_memory_beside(machine):
    nodes = [node for node in probe_host().nodes if node.memory]
    assert len(nodes) == 2
    pin = CpuSet({max(nodes[0].cpus), max(nodes[1].cpus)})
    shown = machine("--cpus", "2", "--memory", "256M", "--pin", str(pin), "--hugepages", "2M")
    vcpus = {n: threads.affinity(t) for t, n in threads.names(shown["pid"]).items() if n.startswith("CPU ")}
    assert set(vcpus.values()) == {CpuSet({cpu}) for cpu in pin}
    maps = numa_maps(shown["pid"])
    for node in nodes:
        assert maps[f"bind:{node.number}"].keys() == {node.number}, maps
    assert tinamou("exec", "inner", "--", "sh", "-c", "ls -d /sys/devices/system/node/node*").split()[1:]
    before = {node.number: Pool(Size(2 << 20), node.number).total for node in nodes}
    assert all(total >= 64 for total in before.values())
    tinamou("rm", "-f", "inner")
    assert all(Pool(Size(2 << 20), node.number).total == 0 for node in nodes)


def test_one_gib_pages(machine):
    shown = machine("--memory", "1G", "--hugepages", "1G")
    text = Path(f"/proc/{shown['pid']}/smaps").read_text()
    block = re.search(r"memfd:memory-backend.*?VmFlags", text, re.DOTALL)[0]
    assert re.search(r"KernelPageSize:\s+1048576 kB", block)


def test_control_group_version_2(machine):
    shown = machine("--memory", "128M", "--set", "limits.cpu=0.5", "--set", "limits.memory=512M")
    path = Path(f"/proc/{shown['pid']}/cgroup").read_text().strip().removeprefix("0::")
    group = Path("/sys/fs/cgroup" + path)
    assert group.parent.name == "tinamou"
    assert (group / "cpu.max").read_text().split() == ["50000", "100000"]
    assert int((group / "memory.max").read_text()) == 512 << 20
    assert int((group / "memory.peak").read_text()) > 32 << 20
    assert int(re.search(r"nr_throttled (\d+)", (group / "cpu.stat").read_text())[1]) > 0
    tinamou("rm", "-f", "inner")
    assert not group.exists()


def test_real_time_and_io_limits(machine, monkeypatch):
    """On a disk of the lab: its temporary folders are in memory, where no rate can be held."""
    place = Path("/var/tmp/tm-lab")
    place.mkdir(mode=0o755)
    monkeypatch.setenv("TINAMOU_STATE", str(place))
    limits = ("--set", "limits.write=1M", "--disk", "size=16M,iothread=true,cache=none")
    shown = machine("--memory", "128M", "--pin", "1", "--set", "cpu.realtime=5", *limits)
    names = threads.names(shown["pid"])
    (vcpu,) = [number for number, name in names.items() if name.startswith("CPU 0/KVM")]
    (iothread,) = [number for number, name in names.items() if name.startswith("IO disk0-io")]
    assert (threads.priority(vcpu), threads.affinity(vcpu)) == (5, {1})
    assert threads.priority(iothread) == 0
    assert 1 not in threads.affinity(iothread)
    path = Path(f"/proc/{shown['pid']}/cgroup").read_text().strip().removeprefix("0::")
    assert "wbps=1048576" in Path(f"/sys/fs/cgroup{path}/io.max").read_text()
    wait = "read a b </proc/uptime; "
    work = "dd if=/dev/zero of=/dev/vda bs=64k count=64 oflag=direct 2>/dev/null; read c d </proc/uptime; echo $a $c"
    before, after = tinamou("exec", "inner", "--", "sh", "-c", wait + work).split()
    assert float(after) - float(before) > 2, "4 MiB at 1 MiB a second"
    tinamou("rm", "-f", "inner")
    shutil.rmtree(place)


@pytest.mark.parametrize(
    "check",
    ["virtualization", "kvm_device", "accelerator", "iommu", "vhost_net", "queued_requests", "real_time", "control_groups"],
)
def test_doctor_finds_the_hardware(check):
    finding = examine_one(check, this_host())
    assert finding.severity == "good", finding
