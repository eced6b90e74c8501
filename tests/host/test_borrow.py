"""What a machine takes from the host comes back as it was; what others changed meanwhile is reported, not overwritten."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tinamou.blueprint import LeaseCpus, MakeCgroup, ReserveHugepages, SetKernelValue, Why
from tinamou.errors import PrepareError
from tinamou.prepare import borrow, groups, shortage
from tinamou.prepare.apply import undo
from tinamou.prepare.journal import Journal
from tinamou.state import ledger
from tinamou.system import cgroups
from tinamou.system.hugetlb import Pool
from tinamou.system.rooted import Rooted
from tinamou.units import CpuSet, Size

WHY = Why("test", "because")
PAGE = Size(2 << 20)


class Host:
    """A pool of huge pages and one kernel value in files; the kernel gives at most ``most`` pages."""

    def __init__(self, root, monkeypatch):
        self.root, self.most = root, 1000
        pool = root / "sys/kernel/mm/hugepages/hugepages-2048kB"
        pool.mkdir(parents=True)
        self.total, self.free = pool / "nr_hugepages", pool / "free_hugepages"
        self.set(0)
        self.thp = root / "thp"
        self.thp.write_text("always [madvise] never\n")
        kernel = self

        class Files(borrow.Rooted):
            def __init__(self):
                super().__init__(str(root))

            def write(self, path, text):
                if path.endswith("nr_hugepages"):
                    kernel.set(min(int(text), kernel.most))
                elif path == "/thp":
                    words = ["always", "madvise", "never"]
                    kernel.thp.write_text(" ".join(f"[{w}]" if w == text else w for w in words))

        monkeypatch.setattr(borrow, "Pool", lambda page, node: Pool(page, node, Files()))
        monkeypatch.setattr(borrow, "Rooted", Files)

    def set(self, total, used=0):
        self.total.write_text(f"{total}\n")
        self.free.write_text(f"{total - used}\n")

    @property
    def pages(self):
        return int(self.total.read_text())


@pytest.fixture
def host(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("TINAMOU_RUN", str(tmp_path / "run"))
    return Host(tmp_path, monkeypatch)


@pytest.fixture
def machine(tmp_path):
    def make(name):
        folder = tmp_path / "machines" / name
        folder.mkdir(parents=True)
        return Journal(folder)

    return make


def pages(count):
    return ReserveHugepages(PAGE, None, count, WHY)


def held_nothing():
    return not ledger.path().exists()


def test_pool_grows_and_shrinks(host, machine):
    host.set(20, used=15)
    one, two = machine("one"), machine("two")
    borrow.reserve_pages(pages(10), one)
    assert host.pages == 25
    host.set(25, used=25)
    borrow.reserve_pages(pages(30), two)
    assert host.pages == 55
    assert one.give_back(undo) == []
    assert host.pages == 50
    two.give_back(undo)
    assert host.pages == 20
    assert held_nothing()


def test_pages_promised_but_not_yet_used_are_not_promised_twice(host, machine):
    host.set(10)
    borrow.reserve_pages(pages(10), machine("one"))
    assert host.pages == 10
    borrow.reserve_pages(pages(4), machine("two"))
    assert host.pages == 14


def test_kernel_gives_too_few(host, machine):
    host.set(5, used=5)
    host.most = 30
    journal = machine("one")
    with pytest.raises(shortage.PagesShortError) as caught:
        borrow.reserve_pages(pages(100), journal)
    for words in ("100 huge pages of 2M", "5 in the pool − 5 used or promised = 0; 100 more were asked", "for 25"):
        assert words in str(caught.value)
    assert host.pages == 5
    journal.give_back(undo)
    assert host.pages == 5
    assert held_nothing()


def test_someone_else_changed_the_pool(host, machine):
    journal = machine("one")
    borrow.reserve_pages(pages(10), journal)
    host.set(64)
    journal.give_back(undo)
    assert host.pages == 64
    (report,) = ledger.look().reports
    assert "is 64, tinamou had left 10" in report


def test_someone_else_changed_the_pool_between_two_machines(host, machine):
    one, two = machine("one"), machine("two")
    borrow.reserve_pages(pages(10), one)
    host.set(64, used=10)
    borrow.reserve_pages(pages(60), two)
    assert host.pages == 70
    one.give_back(undo)
    two.give_back(undo)
    assert host.pages == 64
    assert len(ledger.look().reports) == 1


@pytest.mark.parametrize("reached", [20, 23, 30])
def test_killed_while_the_pool_grew(host, machine, reached, monkeypatch):
    """The move is on disk before the kernel is asked; what the kernel gave by then is given back."""
    host.set(20, used=20)
    journal = machine("one")

    def dies(self, total):
        host.set(reached, used=20)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "resize", dies)
        with pytest.raises(KeyboardInterrupt):
            borrow.reserve_pages(pages(10), journal)
    journal.give_back(undo)
    assert host.pages == 20
    assert held_nothing()


@pytest.mark.parametrize("reached", [30, 27, 20])
def test_killed_while_the_pool_shrank(host, machine, reached, monkeypatch):
    """Another machine's pages are not mistaken for someone else's change."""
    host.set(10, used=10)
    one, two = machine("one"), machine("two")
    borrow.reserve_pages(pages(10), one)
    host.set(20, used=20)
    borrow.reserve_pages(pages(10), two)

    def dies(self, total):
        host.set(reached, used=20)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "resize", dies)
        with pytest.raises(KeyboardInterrupt):
            one.give_back(undo)
    one.give_back(undo)
    assert host.pages == 20
    two.give_back(undo)
    assert host.pages == 10
    assert held_nothing()


def test_cpus_are_lent_once(host, machine):
    one, two = machine("one"), machine("two")
    borrow.lease_cpus(LeaseCpus(CpuSet({0, 1}), WHY), one)
    with pytest.raises(shortage.CpusTakenError, match="CPUs 1 were leased to one"):
        borrow.lease_cpus(LeaseCpus(CpuSet({1, 2}), WHY), two)
    assert ledger.look().leased() == {str(one.path.parent): {0, 1}}
    assert ledger.look().leased(exclude=str(one.path.parent)) == {}
    two.give_back(undo)
    assert ledger.look().leased()
    one.give_back(undo)
    assert held_nothing()


def test_kernel_value_comes_back_with_the_last_machine(host, machine):
    step = SetKernelValue("/thp", "never", WHY)
    one, two = machine("one"), machine("two")
    borrow.set_value(step, one)
    borrow.set_value(step, two)
    assert "[never]" in host.thp.read_text()
    with pytest.raises(PrepareError, match="one, two needs it"):
        borrow.set_value(SetKernelValue("/thp", "always", WHY), machine("three"))
    one.give_back(undo)
    assert "[never]" in host.thp.read_text()
    two.give_back(undo)
    assert "[madvise]" in host.thp.read_text()


def test_kernel_value_someone_else_changed(host, machine):
    journal = machine("one")
    borrow.set_value(SetKernelValue("/thp", "never", WHY), journal)
    host.thp.write_text("[always] madvise never")
    journal.give_back(undo)
    assert "[always]" in host.thp.read_text()
    assert "/thp is 'always'" in ledger.look().reports[0]


def test_ledger_is_whole_on_disk(host, machine):
    borrow.lease_cpus(LeaseCpus(CpuSet({0}), WHY), machine("one"))
    assert json.loads(ledger.path().read_text())["cpus"]
    assert ledger.path().stat().st_mode & 0o777 == 0o600
    assert ledger.look().holders()


@pytest.mark.root
def test_real_pool(machine, monkeypatch, tmp_path):
    monkeypatch.setenv("TINAMOU_RUN", str(tmp_path))
    pool, journal = Pool(PAGE), machine("one")
    before = pool.total
    borrow.reserve_pages(pages(pool.free + 8), journal)
    assert pool.total == before + 8
    journal.give_back(undo)
    assert pool.total == before


@pytest.mark.root
def test_no_rate_without_a_disk(machine):
    journal = machine("one")
    with pytest.raises(PrepareError, match="lies on no single disk"):
        groups.make_group(MakeCgroup("one", WHY, write=Size.parse("10M"), beside="/dev/shm"), journal)
    assert journal.open_entries() == {}


@pytest.mark.root
def test_real_control_group(machine, tmp_path):
    journal = machine("one")
    step = MakeCgroup("one", WHY, 150, Size.parse("64M"), write=Size.parse("10M"), beside=str(tmp_path), pids=40)
    groups.make_group(step, journal)
    (entry,) = journal.open_entries().values()
    places = [Path(place) for place in entry["places"]]
    assert places
    assert all(place.is_dir() for place in places)
    text = " ".join(
        file.read_text()
        for place in places
        for file in place.glob("*")
        if file.name in ("cpu.max", "cpu.cfs_quota_us", "memory.max", "memory.limit_in_bytes", "pids.max")
    )
    assert "40" in text.split()
    assert "150000" in text
    assert str(64 << 20) in text
    rates = [file.read_text() for place in places for file in place.glob("*write_bps_device")]
    rates += [file.read_text() for place in places for file in place.glob("io.max")]
    assert any(str(10 << 20) in rate for rate in rates), rates
    journal.give_back(undo)
    assert not any(place.exists() for place in places)


HUNGRY = """
import os, sys, time
sys.stdin.readline()
try:
    for number in range(200):
        if os.fork() == 0:
            time.sleep(60)
except OSError as error:
    print(number, error.errno, flush=True)
pieces = [bytearray(1 << 20) for _ in range(300)]
print("had it all", flush=True)
"""


@pytest.mark.root
def test_a_group_bounds_processes_and_memory(machine):
    """What QEMU is after it was taken over: it wants every process and all memory, and gets what the group has."""
    journal = machine("one")
    groups.make_group(MakeCgroup("one", WHY, memory=Size.parse("64M"), pids=40), journal)
    words = [sys.executable, "-c", HUNGRY]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0)
    groups.enter_groups(journal, process.pid)
    assert process.stdin
    assert process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    first = process.stdout.readline().split()
    status = process.wait(60)
    os.killpg(process.pid, signal.SIGKILL)
    assert first == ["39", str(errno.EAGAIN)]
    assert status == -signal.SIGKILL
    assert cgroups.ended_for_memory(Rooted(), groups.group_places(journal)) >= 1
    journal.give_back(undo)


@pytest.mark.root
def test_what_a_process_started_before_it_was_in_the_group_is_in_it_too(machine):
    """A virtiofsd has made a child by the time its number is known."""
    journal = machine("one")
    groups.make_group(MakeCgroup("one", WHY, pids=40), journal)
    script = "import os, time; os.fork() or os.fork(); os.write(1, b'%d\\n' % os.getpid()); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, process_group=0)
    assert process.stdout
    started = {int(process.stdout.readline()) for _ in range(3)}
    groups.enter_groups(journal, process.pid)
    place = Path(groups.group_places(journal)[0])
    assert {int(one) for one in (place / "cgroup.procs").read_text().split()} == {process.pid}
    groups.enter_all(journal, process.pid)
    assert {int(one) for one in (place / "cgroup.procs").read_text().split()} == started
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    journal.give_back(undo)


def test_a_group_that_cannot_be_made_is_told_apart(machine, monkeypatch):
    """Another plan may do; the journal owes nothing."""
    journal = machine("one")

    def refuse(name, limits):
        raise OSError(errno.EROFS, "it is read-only")

    monkeypatch.setattr(cgroups, "make", refuse)
    with pytest.raises(shortage.GroupRefusedError, match="read-only"):
        groups.make_group(MakeCgroup("one", WHY, memory=Size.parse("64M"), pids=40), journal)
    assert journal.open_entries() == {}
