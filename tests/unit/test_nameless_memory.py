"""Memory without a name: sealed for good, found in other processes without opening anything else, kept as long as wanted."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tinamou.snapshots.ram import Held, held, let_go, shut
from tinamou.system import ram
from tinamou.system.spawn import Process, alive, process_of

PAGE = mmap.PAGESIZE


@pytest.fixture
def sealed() -> Iterator[int]:
    """Two pages, sealed."""
    memory = ram.blank("sealed", 2 * PAGE)
    os.pwrite(memory, b"kept", PAGE)
    ram.seal(memory)
    os.fchmod(memory, 0o666)
    yield memory
    os.close(memory)


def test_what_is_sealed_stays_as_it_is(sealed: int) -> None:
    again = os.open(f"/proc/self/fd/{sealed}", os.O_RDWR)
    ways = [
        lambda: os.pwrite(again, b"x", PAGE),
        lambda: os.ftruncate(again, 0),
        lambda: os.ftruncate(again, 3 * PAGE),
        lambda: mmap.mmap(again, PAGE, mmap.MAP_SHARED, mmap.PROT_WRITE | mmap.PROT_READ),
        lambda: fcntl.fcntl(again, fcntl.F_ADD_SEALS, 0),
    ]
    for way in ways:
        with pytest.raises(PermissionError):
            way()
    private = mmap.mmap(again, 2 * PAGE, mmap.MAP_PRIVATE, mmap.PROT_WRITE | mmap.PROT_READ)
    private[PAGE : PAGE + 4] = b"mine"
    os.close(again)
    assert os.pread(sealed, 4, PAGE) == b"kept"
    assert ram.is_closed(sealed)


def test_memory_of_a_size_keeps_it() -> None:
    memory = ram.blank("ram", PAGE)
    for size in (0, 2 * PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(memory, size)
    os.pwrite(memory, b"x", 0)
    assert not ram.is_closed(memory)
    os.close(memory)


def test_only_memory_is_opened(tmp_path: Path) -> None:
    """A named pipe would wait for a writer for ever, and a file would be read with this user's rights."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "memfd:ram (deleted)").write_text("secret")
    for name in ("pipe", "memfd:ram (deleted)"):
        held_by_path = os.open(tmp_path / name, os.O_PATH)
        with pytest.raises(OSError, match="is no memory"):
            ram.opened(os.getpid(), held_by_path)
        os.close(held_by_path)
    memory = ram.blank("ram", PAGE)
    found = ram.opened(os.getpid(), memory)
    assert os.path.sameopenfile(found, memory)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(found, b"x")
    os.close(found)
    os.close(memory)


HOSTILE = """
import fcntl, os, time
def memory(size, seals):
    descriptor = os.memfd_create("ram", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
os.setresgid(65501, 65501, 65501)
os.setresuid(65501, 65501, 65501)
both = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
memory(4096, both), memory(8192, both), memory(4096, fcntl.F_SEAL_GROW)
print("made", flush=True)
time.sleep(60)
"""


def _memories(pid: int) -> list[int]:
    return [one.stat().st_ino for one in Path(f"/proc/{pid}/fd").iterdir() if str(one.readlink()).startswith("/memfd:")]


@pytest.mark.root
def test_memory_of_a_machine_is_what_was_given_to_it() -> None:
    """A QEMU that was taken over shows memory of its own making: the copy would be cut under who makes it, or endless."""
    mine = ram.blank("ram", PAGE)
    program = [sys.executable, "-c", HOSTILE]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as hostile:
        assert hostile.stdout is not None
        hostile.stdout.readline()
        for inode in _memories(hostile.pid):
            with pytest.raises(FileNotFoundError, match="no memory of 4096 bytes that was made for it"):
                ram.memory_of(hostile.pid, inode, PAGE)
        hostile.kill()
    with subprocess.Popen(program, stdout=subprocess.PIPE, pass_fds=[mine]) as hostile:
        assert hostile.stdout is not None
        hostile.stdout.readline()
        inode = os.fstat(mine).st_ino
        found, numbers = ram.memory_of(hostile.pid, inode, PAGE)
        assert os.path.sameopenfile(found, mine)
        assert numbers == [mine]
        os.close(found)
        for other, size in ((inode, 2 * PAGE), (inode + 1, PAGE)):
            with pytest.raises(FileNotFoundError):
                ram.memory_of(hostile.pid, other, size)
        hostile.kill()
    os.close(mine)


def kept(folder: Path, *, ephemeral: bool = False) -> Held:
    """Memory that is kept for a checkpoint with this folder; nobody else has it."""
    memory = ram.blank("checkpoint one", PAGE)
    os.pwrite(memory, b"kept", 0)
    with held([memory], folder, writable=True, ephemeral=ephemeral) as [one]:
        (folder / "checkpoint.json").touch()
    os.close(memory)
    return one


@pytest.mark.parametrize("ephemeral", [True, False])
def test_what_is_written_over_it_is_kept_beside(tmp_path: Path, *, ephemeral: bool) -> None:
    memories = [ram.blank("ram", PAGE), ram.blank("changes", 2 * PAGE)]
    for number, memory in enumerate(memories):
        os.pwrite(memory, b"%4d" % number, 0)
    with held(memories, tmp_path, writable=False, ephemeral=ephemeral) as both:
        (tmp_path / "checkpoint.json").touch()
    for memory in memories:
        os.close(memory)
    assert [text(one) for one in both] == [b"   0", b"   1"]
    let_go(tmp_path, both[0])
    for one in both:
        with pytest.raises(OSError, match=r"gone|No such file"):
            one.open()


def test_who_had_it_mapped_may_write_until_it_is_shut(tmp_path: Path) -> None:
    """A source that just went over to private pages has its old mapping for a moment; nobody else begins to write."""
    memory = ram.blank("ram", PAGE)
    before = mmap.mmap(memory, PAGE)
    with held([memory], tmp_path, writable=True, ephemeral=True) as [one]:
        assert text(one)
    before[:4] = b"late"
    with pytest.raises(PermissionError):
        os.pwrite(memory, b"x", 0)
    with pytest.raises(OSError, match="busy"):
        shut(tmp_path)
    before.close()
    shut(tmp_path)
    assert text(one) == b"late"
    let_go(tmp_path, one)
    os.close(memory)


def text(one: Held) -> bytes:
    """What is read from it."""
    descriptor = one.open()
    try:
        return os.pread(descriptor, 4, 0)
    finally:
        os.close(descriptor)


def until(condition: Callable[[], bool]) -> None:
    """Wait for it, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("ephemeral", [True, False])
def test_it_is_kept_until_it_is_let_go(tmp_path: Path, *, ephemeral: bool) -> None:
    one = kept(tmp_path, ephemeral=ephemeral)
    assert (text(one), one.alone, one.pid == os.getpid()) == (b"kept", not ephemeral, ephemeral)
    let_go(tmp_path, one)
    with pytest.raises(OSError, match=r"gone|No such file"):
        one.open()
    let_go(tmp_path, one)
    assert ephemeral or not alive(Process(one.pid, one.started))


def test_another_process_under_that_number_is_left_alone(tmp_path: Path) -> None:
    """A number used again, and a process that has something else there: neither is read nor ended."""
    one = kept(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as other:
        there = process_of(other.pid)
        for wrong in (Held(there.pid, 1, 0, one.inode, PAGE, True), Held(*vars(there).values(), 0, one.inode, PAGE, True)):
            with pytest.raises(OSError, match=r"is gone|is no memory"):
                wrong.open()
            let_go(tmp_path, wrong)
        wrong = Held(one.pid, one.started, 0, one.inode + 1, PAGE, True)
        with pytest.raises(OSError, match="does not keep it"):
            wrong.open()
        let_go(tmp_path, wrong)
        assert (other.poll(), text(one)) == (None, b"kept")
        other.kill()
    let_go(tmp_path, one)


def test_the_keeper_ends_with_the_entry(tmp_path: Path) -> None:
    """However the entry went: the folder of all checkpoints can be removed by hand."""
    one = kept(tmp_path)
    naps = Path(f"/proc/{one.pid}/task/{one.pid}/children")
    until(lambda: bool(naps.read_text().split()))
    (tmp_path / "checkpoint.json").unlink()
    with contextlib.suppress(IndexError, ProcessLookupError):  # one that is over already
        os.kill(int(naps.read_text().split()[0]), signal.SIGTERM)  # it looks again after each nap
    until(lambda: not alive(Process(one.pid, one.started)))


CUT_SHORT = """
import os, sys, time
from pathlib import Path
from tinamou.snapshots.ram import held
from tinamou.system import ram
with held([ram.blank("checkpoint one", 4096)], Path(sys.argv[1]), writable=True, ephemeral=False) as [one]:
    print(one.pid, one.started, flush=True)
    time.sleep(60)
"""


def test_a_save_that_is_killed_leaves_no_keeper(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", CUT_SHORT, tmp_path], stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None
        keeper = Process(*map(int, saving.stdout.readline().split()))
        assert alive(keeper)
        saving.kill()
    until(lambda: not alive(keeper))


def test_a_save_that_fails_leaves_no_keeper(tmp_path: Path) -> None:
    memory = ram.blank("checkpoint one", PAGE)
    with pytest.raises(RuntimeError), held([memory], tmp_path, writable=False, ephemeral=False) as [one]:
        raise RuntimeError
    assert not alive(Process(one.pid, one.started))
    os.close(memory)
