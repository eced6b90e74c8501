"""Memory another process has mapped: put on another file in an instant, what it changed found, read and written."""

from __future__ import annotations

import fcntl
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinamou.snapshots import changes
from tinamou.system import holding, mappings, ram
from tinamou.system.inject import begin, held
from tinamou.system.mappings import Mapping, changed, clear_shelf, mapping_of, move, on_shelf

pytestmark = pytest.mark.skipif(bool(holding.why_not()), reason=holding.why_not() or "-")

PAGE, SIZE = mmap.PAGESIZE, 64 << 20

OWNER = """
import mmap, sys
memory = mmap.mmap(int(sys.argv[1]), int(sys.argv[2]), mmap.MAP_SHARED)
for line in sys.stdin:
    at, text = line.split()
    if text == "?":
        print(memory[int(at) : int(at) + 4].decode(), flush=True)
    else:
        memory[int(at) : int(at) + 4] = text.encode()
        print("done", flush=True)
"""


class Owner:
    """A process that has memory mapped, as QEMU has a guest's."""

    def __init__(self, memory: int, *more: int) -> None:
        words = [sys.executable, "-c", OWNER, str(memory), str(SIZE)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[memory, *more]
        )
        self.pid = self.process.pid

    def ask(self, at: int, text: str = "?") -> str:
        """What it has there, or writes there."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{at} {text}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@pytest.fixture
def memory() -> Iterator[int]:
    """64 MiB, with something at the beginning and in the middle."""
    memory = ram.blank(ram.NAME, SIZE)
    os.pwrite(memory, b"zero", 0)
    os.pwrite(memory, b"half", SIZE // 2)
    yield memory
    os.close(memory)


@pytest.fixture
def owner(memory: int) -> Iterator[Owner]:
    """It has that mapped."""
    owner = Owner(memory)
    assert owner.ask(0) == "zero"
    yield owner
    owner.process.kill()
    owner.process.wait()


def freeze(owner: Owner, number: int) -> Mapping:
    """Have it go over to private pages over its descriptor ``number``."""
    mapping = mapping_of(owner.pid, SIZE)

    def work() -> None:
        with held(owner.pid) as caller:
            move(caller, mapping, number, merge=False)

    begin(work).result()
    return mapping_of(owner.pid, SIZE)


def test_memory_is_frozen_where_it_lies(owner: Owner, memory: int) -> None:
    before = mapping_of(owner.pid, SIZE)
    assert (before.private, before.inode) == (False, os.fstat(memory).st_ino)
    after = freeze(owner, memory)
    assert after == Mapping(before.address, SIZE, before.inode, private=True)
    assert (owner.ask(0), owner.ask(SIZE // 2)) == ("zero", "half")
    assert owner.ask(0, "mine") == "done"
    assert (owner.ask(0), os.pread(memory, 4, 0)) == ("mine", b"zero")
    with pytest.raises(OSError, match="busy"):
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert len(on_shelf(owner.pid)) == 1
    begin(lambda: clear_shelf(owner.pid)).result()
    assert on_shelf(owner.pid) == []
    ram.seal(memory)
    assert (owner.ask(0), owner.ask(SIZE // 2)) == ("mine", "half")


def test_what_cannot_be_mapped_leaves_all_as_it_was(owner: Owner, memory: int) -> None:
    before = mapping_of(owner.pid, SIZE)
    with pytest.raises(OSError, match="mmap of process"):
        freeze(owner, 99)
    assert (mapping_of(owner.pid, SIZE), on_shelf(owner.pid)) == (before, [])
    assert owner.ask(8, "both") == "done"
    assert os.pread(memory, 4, 8) == b"both"


def test_private_pages_survive_what_cannot_be_mapped(owner: Owner, memory: int) -> None:
    freeze(owner, memory)
    begin(lambda: clear_shelf(owner.pid)).result()
    owner.ask(0, "mine")
    with pytest.raises(OSError, match="mmap of process"):
        freeze(owner, 99)
    assert owner.ask(0) == "mine"


def test_changes_are_found_and_carried_over(owner: Owner, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mapping = freeze(owner, memory)
    assert changed(owner.pid, mapping) == []
    owner.ask(SIZE // 2)  # reading changes nothing
    for at, text in ((0, "aaaa"), (PAGE, "bbbb"), (9 * PAGE, "cccc"), (SIZE - 4, "last")):
        owner.ask(at, text)
    runs = changed(owner.pid, mapping)
    assert runs == [(0, 2 * PAGE), (9 * PAGE, 10 * PAGE), (SIZE - PAGE, SIZE)]
    with Path(f"/proc/{owner.pid}/pagemap").open("rb", buffering=0) as pagemap:
        assert mappings._read(pagemap.fileno(), mapping) == runs
    monkeypatch.setattr(mappings, "_PARTS", 2)
    side = changes.room_for(PAGE)
    changes.save(side, owner.pid, mapping, runs)
    begin(lambda: clear_shelf(owner.pid)).result()
    ram.seal(memory)
    with_changes(side, memory)


def with_changes(side: int, memory: int) -> None:
    """Another process, put on the same memory with the changes over it, and a copy of the memory with them."""
    other = Owner(ram.blank(ram.NAME, SIZE), memory)
    assert other.ask(0) == "\0" * 4
    changes.apply(side, other.pid, freeze(other, memory))
    copy = ram.copied(os.dup(memory), ram.NAME)
    changes.apply_to(side, copy)
    for at, text in ((0, "aaaa"), (PAGE, "bbbb"), (9 * PAGE, "cccc"), (SIZE - 4, "last"), (SIZE // 2, "half")):
        assert other.ask(at) == text
        assert os.pread(copy, 4, at) == text.encode()
    assert os.pread(memory, 4, 0) == b"zero"
    other.process.kill()
    other.process.wait()


def test_a_process_without_such_memory_is_told() -> None:
    with pytest.raises(OSError, match="has 0 memories of"):
        mapping_of(os.getpid(), SIZE)
