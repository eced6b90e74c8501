"""A pinned machine on huge pages gives the host back, however it ends: orderly, by itself, by kill -9."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typed import call, tinamou

from tinamou.machine.reconcile import reconcile
from tinamou.prepare.journal import Journal
from tinamou.state import ledger
from tinamou.system import threads
from tinamou.system.hugetlb import Pool
from tinamou.units import CpuSet, Size

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.usefixtures("whole_host")]
PAGE = Size(2 << 20)
WISH = ("--cpus", "2", "--memory", "128M", "--pin", "auto", "--hugepages", "2M")


@pytest.fixture
def pages():
    """Pages in the pool before the test; they are back at its end."""
    before = Pool(PAGE).total
    yield before
    assert Pool(PAGE).total == before
    assert not ledger.path().exists()


def lent(before):
    """Whether a machine still has its pages: promised, and the pool larger by those that were not free in it."""
    [value] = ledger.look().pools.values()
    [claim] = value.claims.values()
    return claim.count == 64 and Pool(PAGE).total == before + claim.grown


def held():
    return [row for row in json.loads(tinamou("host", "--json"))["holdings"] if row["machine"] == "held"]


def start(*more):
    tinamou("run", "--name", "held", "-d", *WISH, *more)
    return json.loads(tinamou("show", "held", "--json"))


def huge_kib(pid):
    """Guest memory on 2 MiB pages, in KiB, as smaps tells (source: proc_pid_smaps(5))."""
    text = Path(f"/proc/{pid}/smaps").read_text()
    block = re.search(r"memfd:memory-backend.*?VmFlags", text, re.DOTALL)[0]
    assert re.search(r"KernelPageSize:\s+2048 kB", block)
    return sum(int(size) for size in re.findall(r"_Hugetlb:\s+(\d+) kB", block))


def test_runs_as_planned_and_gives_back(pages):
    shown = start("--set", "limits.cpu=1.5")
    planned = [CpuSet.parse(cpus) for cpus in shown["pinning"]]
    names = threads.names(shown["pid"])
    vcpus = {name: threads.affinity(number) for number, name in names.items() if name.startswith("CPU ")}
    assert vcpus == {f"CPU {i}/TCG": cpus for i, cpus in enumerate(planned)} or shown["accel"] != "tcg"
    assert len(set(planned)) == 2
    assert huge_kib(shown["pid"]) == 128 << 10
    assert Pool(PAGE).total >= 64
    rows = {row["kind"]: row["what"] for row in held()}
    assert rows.keys() >= {"process", "cpus", "hugepages", "cgroup", "helper", "files"}
    assert rows["process"].startswith(f"QEMU, process {shown['pid']}")
    assert rows["hugepages"] == "64 pages of 2M on any node"
    assert re.fullmatch(r"passt, process \d+", rows["helper"])
    assert "tinamou/held-" in Path(f"/proc/{shown['pid']}/cgroup").read_text()
    doctor = call("doctor", "held", "--json")
    found = {one["check"]: one["severity"] for one in json.loads(doctor.stdout)["findings"]}
    assert found["machine_pinning"] == "good"
    threads.pin(next(number for number, name in names.items() if name.startswith("CPU 0")), CpuSet({0, 1}))
    doctor = call("doctor", "held", "--json")
    assert doctor.returncode == 1
    tinamou("stop", "held")
    assert Pool(PAGE).total == pages


def test_real_time_and_io_threads():
    """The virtual CPU alone has real-time priority; a disk's thread runs beside it, and reads and writes as planned."""
    tinamou("run", "--name", "held", "-d", "--pin", "1", "--set", "cpu.realtime=7", "--disk", "size=16M,iothread=true")
    shown = json.loads(tinamou("show", "held", "--json"))
    names = threads.names(shown["pid"])
    (vcpu,) = [number for number, name in names.items() if "CPU" in name]
    (iothread,) = [number for number, name in names.items() if name.startswith("IO disk0-io")]
    assert {threads.priority(number) for number in names if number != vcpu} == {0}
    assert threads.priority(vcpu) == 7
    assert threads.affinity(vcpu) == {1}
    assert threads.affinity(iothread) == {0}
    doctor = json.loads(call("doctor", "held", "--json").stdout)["findings"]
    assert {one["check"]: one["severity"] for one in doctor}["machine_pinning"] == "good"
    wait = "dd if=/dev/zero of=/dev/vda bs=64k count=64 oflag=direct"
    tinamou("exec", "held", "--", "sh", "-c", wait)
    tinamou("rm", "-f", "held")


def test_guest_powers_off(pages):
    shown = start()
    call("exec", "held", "--", "poweroff", "-f")
    gone(shown["pid"])
    assert lent(pages)
    tinamou("ls")
    assert Pool(PAGE).total == pages


def test_qemu_is_killed(pages):
    pid = start()["pid"]
    os.kill(pid, signal.SIGKILL)
    gone(pid)
    tinamou("ls")
    assert Pool(PAGE).total == pages
    assert {row["kind"] for row in held()} == {"files"}


@pytest.mark.parametrize("both", [False, True])
def test_tinamou_is_killed(pages, both):
    """In the foreground QEMU dies with tinamou; killing both leaves everything to the next command."""
    words = [sys.executable, "-m", "tinamou", "run", *WISH, "--", "sleep", "100"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as command:
        deadline = time.monotonic() + 60
        while not (running := qemus(command.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
        if both:
            os.kill(running[0], signal.SIGKILL)
        command.kill()
    gone(running[0])
    assert lent(pages)
    assert reconcile()
    assert Pool(PAGE).total == pages


def qemus(parent):
    """QEMU processes a process started whose pool claim is written down."""
    if not ledger.look().pools:
        return []
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if b"-nodefaults" in command_line(pid)]


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


def gone(pid):
    stat, deadline = Path(f"/proc/{pid}/stat"), time.monotonic() + 120
    while stat.exists() and ") Z" not in stat.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_second_machine_finds_no_cpu(pages):
    start()
    done = call("run", "--pin", "0", "--", "true")
    assert done.returncode == 112
    assert "leased to held: 0" in done.stderr
    tinamou("rm", "-f", "held")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cpus", "99", "--pin", "auto", "--set", "cpu.strict=true"), "99 wanted"),
        (("--memory", "900G"), "MiB are missing"),
        (("--memory", "900G", "--hugepages", "2M"), "room for"),
        (("--pin", "4000"), "not on this host: 4000"),
        (("--cpus", "2", "--pin", "0-1", "--set", "cpu.realtime=1"), "the host"),
        (("--pin", "auto", "--set", "cpu.near=nothing"), "no such device"),
        (("--memory", "256M", "--set", "limits.memory=128M"), "the kernel would end the machine"),
    ],
)
def test_refusals(words, said):
    done = call("plan", *words)
    assert done.returncode == 112, done.stderr
    assert said in done.stderr
    assert "fix:" in done.stderr or "—" in done.stderr


def test_every_process_of_a_machine_is_in_its_group():
    """Without any limit asked for: QEMU, passt and the TPM, with bounds on memory, tasks and open files."""
    tinamou("run", "--name", "held", "-d", "--net", "type=passt", "--set", "tpm.enabled=true")
    shown = json.loads(tinamou("show", "held", "--json"))
    entries = Journal(Path(shown["directory"])).open_entries().values()
    (places,) = [list(map(Path, entry["places"])) for entry in entries if entry["kind"] == "cgroup"]
    helpers = {entry["name"]: entry["pid"] for entry in entries if entry["kind"] == "helper"}
    assert helpers.keys() == {"passt", "swtpm"}
    for place in places:
        assert {shown["pid"], *helpers.values()} <= set(map(int, (place / "cgroup.procs").read_text().split()))
    held = [file for place in places for name in ("memory.max", "memory.limit_in_bytes") if (file := place / name).exists()]
    assert (512 << 20) < int(held[0].read_text()) < (2048 << 20)
    assert any(0 < int((place / "pids.max").read_text()) < 4000 for place in places if (place / "pids.max").exists())
    limits = Path(f"/proc/{shown['pid']}/limits").read_text()
    assert int(re.search(r"Max open files\s+(\d+)\s+\1", limits)[1]) < 2048
    found = {one["check"]: one["severity"] for one in json.loads(call("doctor", "held", "--json").stdout)["findings"]}
    assert found["machine_limits"] == "good"
    tinamou("rm", "-f", "held")
    assert not any(place.exists() for place in places)


def test_limits_hold():
    """A guest that turns in circles is held back: the kernel counts how often."""
    tinamou("run", "--name", "held", "-d", "--set", "limits.cpu=0.2")
    call("exec", "held", "--", "sh", "-c", "(while :; do :; done) </dev/null >/dev/null 2>&1 &")
    journal = Journal(Path(json.loads(tinamou("show", "held", "--json"))["directory"]))
    (places,) = [entry["places"] for entry in journal.open_entries().values() if entry["kind"] == "cgroup"]
    places = [place for place in places if Path(place, "cpu.stat").exists()]
    held_back = 0
    for _ in range(600):
        held_back = int(re.search(r"nr_throttled (\d+)", Path(places[0], "cpu.stat").read_text())[1])
        if held_back > 5:
            break
        time.sleep(0.1)
    tinamou("rm", "-f", "held")
    assert held_back > 5
    assert not Path(places[0]).exists()
