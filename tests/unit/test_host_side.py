"""What other running machines may still claim of the host's memory, and what a machine gets that finds no huge pages."""

import subprocess
import sys

import pytest

from tinamou.machine.host_side import claims, without_huge_pages
from tinamou.prepare.shortage import PagesShortError
from tinamou.spec import load_spec
from tinamou.state import machines
from tinamou.state.record import Record, create
from tinamou.system.spawn import process_of
from tinamou.units import Size

MIB = 1 << 20
HELD = 96


@pytest.fixture
def holder():
    """The number of a process that has touched so much memory, and waits."""
    code = f"held = bytearray({HELD} << 20); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process.pid
        process.communicate(b"\n")


def machine(name, pid=0, **spec):
    """A machine's entry; its QEMU is the process of that number, with 0 it does not run."""
    with machines.making(name) as folder:
        return create(Record(name, str(folder), spec, pid=pid, started=process_of(pid).started if pid else 0))


def test_what_a_machine_holds_is_no_longer_claimed(state, holder):
    """QEMU itself takes 96 MiB, and 4 more for each virtual CPU; the process holds a little beside what it touched."""
    machine("one", holder, memory={"size": "1G"}, cpu={"count": 2})
    machine("plain", holder)
    machine("off", memory={"size": "8G"})
    found = {name: size / MIB for name, size in claims("").items()}
    promised = {"one": 1024 + 96 + 2 * 4, "plain": 512 + 96 + 4}
    assert set(found) == set(promised)
    assert all(promised[name] - HELD - 64 < found[name] <= promised[name] - HELD for name in promised)
    assert round(found["one"] - found["plain"]) == promised["one"] - promised["plain"]  # the kernel counts pages in batches


def test_a_machine_that_holds_more_than_it_was_promised_claims_nothing(state, holder):
    """Not less than nothing either, which would make room for others."""
    machine("small", holder, memory={"size": "0M"}, cpu={"count": 0})
    assert claims("") == {"small": Size(0)}


def test_a_machine_claims_nothing_of_itself(state, holder):
    mine = machine("mine", holder)
    machine("other", holder)
    assert set(claims(mine.directory)) == {"other"}


def test_without_huge_pages_only_where_they_were_not_asked_for():
    short = PagesShortError("there are too few", why="3 of 8 pages")
    asked = load_spec({"memory": {"size": "1G", "hugepages": "auto"}})
    spec, note = without_huge_pages(asked, short)
    assert spec == load_spec({"memory": "1G"})
    assert (note.level, note.why.reason) == ("warning", "3 of 8 pages")
    assert without_huge_pages(asked, PagesShortError("there are too few"))[1].why.reason == "there are too few"
    with pytest.raises(PagesShortError) as error:
        without_huge_pages(load_spec({"memory": {"hugepages": "2M"}}), short)
    assert error.value is short
