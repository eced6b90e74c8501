"""Attacks on what forks are made of, by other users and by a fork's QEMU that was taken over: nothing is read or changed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinamou import Machine
from tinamou.machine.checkpoints import every
from tinamou.machine.connected import Connected
from tinamou.machine.facade import AsyncMachine
from tinamou.machine.forking import fork_many
from tinamou.snapshots.checkpoint import Checkpoint
from tinamou.snapshots.resting import discard
from tinamou.system.loop_thread import wait_for

pytestmark = [pytest.mark.vm, pytest.mark.root]

STRANGER = 65501

ATTACK = r"""
import ctypes, fcntl, json, mmap, os, sys
user, pids = int(sys.argv[1]), [int(word) for word in sys.argv[2:]]
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PIDFD_GETFD, SHARED, PUNCH_HOLE = 438, 1, 3

os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
done = []

def attempt(what, way):
    try:
        if way() is not False:
            done.append(what)
    except OSError:
        pass

def taken(pid, number):
    descriptor = libc.syscall(PIDFD_GETFD, os.pidfd_open(pid), number, 0)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return descriptor

def punched(descriptor):
    return not libc.fallocate(descriptor, PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(1 << 20))

def mapped(descriptor, protection):
    place = libc.mmap(None, 1 << 20, protection, SHARED, descriptor, 0)
    if place == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    return place

def protected(descriptor):
    return not libc.mprotect(mapped(descriptor, 1), 1 << 20, 3)

def forced(descriptor):
    with open("/proc/self/mem", "r+b", buffering=0) as mine:
        place = mapped(descriptor, 1)
        mine.seek(place)
        mine.write(b"attack")

def attack(descriptor, how):
    attempt(how + " read", lambda: os.pread(descriptor, 16, 1 << 20))
    attempt(how + " write", lambda: os.pwrite(descriptor, b"attack", 1 << 20))
    attempt(how + " cut", lambda: os.ftruncate(descriptor, 4096))
    attempt(how + " grow", lambda: os.ftruncate(descriptor, 1 << 40))
    attempt(how + " punch", lambda: punched(descriptor))
    attempt(how + " map", lambda: mapped(descriptor, 3))
    attempt(how + " mprotect", lambda: protected(descriptor))
    attempt(how + " force", lambda: forced(descriptor))
    attempt(how + " chmod", lambda: os.fchmod(descriptor, 0o777))
    attempt(how + " seals", lambda: fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0))

def descriptors(pid):
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []

for pid in pids:
    for number in descriptors(pid) or range(64):
        path = f"/proc/{pid}/fd/{number}"
        try:
            if not os.readlink(path).startswith(("/memfd:checkpoint", "/memfd:ram", "/memfd:changes")):
                continue
        except OSError:
            pass
        for flags in (os.O_RDONLY, os.O_RDWR):
            attempt(f"{number} open {flags}", lambda: attack(os.open(path, flags), f"{number} opened {flags}"))
        attempt(f"{number} take", lambda: attack(taken(pid, number), f"{number} taken"))
    attempt(f"mem of {pid}", lambda: open(f"/proc/{pid}/mem", "r+b").close())
for name in os.listdir("/dev/shm"):
    if "tinamou" in name:
        done.append("/dev/shm/" + name)
print(json.dumps(done))
"""


def attacked(user: int, *pids: int) -> list[str]:
    """What somebody under this user id managed to do."""
    argv = [sys.executable, "-I", "-c", ATTACK, str(user), *map(str, pids)]
    found = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    done: list[str] = json.loads(found.stdout)
    return done


@pytest.fixture
def checkpoint(every_qemu: str) -> Iterator[Checkpoint]:
    """One of a machine that is gone, once with each QEMU."""
    with Machine(forkable=True, net=[]) as source:
        taken = source.checkpoint("moment")
    yield taken
    discard(Path(taken.directory))


def fork(checkpoint: Checkpoint) -> Machine:
    """A machine that runs."""
    [restored] = wait_for(fork_many(checkpoint, 1))
    return Machine.around(AsyncMachine.around(Connected.of_fork(restored)))


def digest(checkpoint: Checkpoint) -> str:
    """Of all of its memory."""
    assert checkpoint.ram
    with os.fdopen(checkpoint.ram.open(), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_nobody_else_reaches_the_memory(checkpoint: Checkpoint) -> None:
    assert checkpoint.ram
    with fork(checkpoint) as one:
        assert attacked(STRANGER, checkpoint.ram.pid, os.getpid(), one.record.pid) == []


def test_a_fork_that_was_taken_over_cannot_write_to_what_others_are_forks_of(checkpoint: Checkpoint) -> None:
    before = digest(checkpoint)
    with fork(checkpoint) as one:
        assert one.record.uid
        done = attacked(one.record.uid, one.record.pid)
        ways = {way.split(" ", 1)[1] for way in done if not way.startswith("mem of")}
        harmless = {f"{how} read" for how in ("opened 0", "opened 2", "taken")} | {"open 0", "open 2", "take"}
        assert {"take", "taken read"} <= ways <= harmless
    assert digest(checkpoint) == before
    with fork(checkpoint) as other:
        assert other.run("echo on").text == "on"


REOPEN = """
import os, sys
try:
    os.open(f"/proc/self/fd/{sys.argv[1]}", os.O_RDWR)
    print("opened")
except PermissionError:
    print("refused")
"""


def test_the_user_id_of_the_source_is_not_the_owner_of_frozen_disks() -> None:
    """Once the source is gone a fork may be leased that id, and a fork is handed these files for reading."""
    with Machine(forkable=True, net=[], disks=[{"size": "64M"}]) as source:
        checkpoint, user = source.checkpoint("disks"), source.record.uid
    assert user
    try:
        for frozen in Path(checkpoint.directory).glob("disk*"):
            with frozen.open("rb") as file:
                words = [sys.executable, "-c", REOPEN, str(file.fileno())]
                handed = {"pass_fds": [file.fileno()], "user": user, "group": user, "extra_groups": []}
                done = subprocess.run(words, capture_output=True, text=True, check=True, **handed)
            assert done.stdout == "refused\n"
        with fork(checkpoint) as one:
            assert one.run("dd if=/dev/zero of=/dev/vda bs=512 count=1 2>/dev/null; echo on").text == "on"
    finally:
        discard(Path(checkpoint.directory))


def test_forks_of_a_running_machine_and_their_pages(checkpoint: Checkpoint) -> None:
    """Memory that dies with its process is as closed; forks share it, whatever of it they read."""
    with Machine(forkable=True, net=[]) as source, source.fork(2) as forks:
        assert attacked(STRANGER, os.getpid(), *(one.record.pid for one in forks)) == []
        for one in forks:
            lines = Path(f"/proc/{one.record.pid}/smaps_rollup").read_text().splitlines()
            sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
            assert sizes["Shared_Clean"] + sizes["Shared_Dirty"] > sizes["Private_Dirty"]


def old_place() -> Path:
    """Where older versions kept memory: anybody can compute it."""
    return Path(f"/dev/shm/tinamou-{os.geteuid()}-{zlib.crc32(os.environ['TINAMOU_STATE'].encode()):08x}")


def as_stranger(program: str) -> None:
    """Run it under another user id."""
    subprocess.run([sys.executable, "-c", program], check=True, user=STRANGER, group=STRANGER, extra_groups=[])


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """A tinamou command that ended well."""
    argv = [sys.executable, "-m", "tinamou", *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done


PLANTED = {
    "a folder": "os.makedirs(f'{place}/x.ram')",
    "a file": "open(place, 'w').close()",
    "a link": "os.symlink(precious, place)",
    "a pipe": "os.mkfifo(place)",
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_another_user_plants_stops_and_misleads_nobody(what: str, tmp_path: Path) -> None:
    place, precious = old_place(), tmp_path / "precious"
    precious.mkdir(mode=0o755)
    for name in ("mine.ram", "state"):
        (precious / name).write_text("mine")
    as_stranger(f"import os; place, precious = {str(place)!r}, {str(precious)!r}; {PLANTED[what]}")
    try:
        assert command("run", "--warm", "--", "echo", "on").stdout == "on\n"
        assert command("ls").stderr == ""
        assert place.is_symlink() or place.exists()
        assert {path.name for path in precious.iterdir()} == {"mine.ram", "state"}
    finally:
        for one in every():
            discard(Path(one.directory))
        clear = "os.path.isdir(place) and not os.path.islink(place) and (os.rmdir(f'{place}/x.ram'), os.rmdir(place))"
        as_stranger(f"import os; place = {str(place)!r}; {clear} or os.unlink(place)")


def test_checkpoints_of_older_versions_are_removed_with_their_open_memory(state: Path) -> None:
    place = old_place()
    place.mkdir(mode=0o711)
    (place / "state").write_text(str(state))
    (place / "old.ram").write_bytes(b"x")
    folder = state / "checkpoints" / "old"
    folder.mkdir(parents=True)
    memory = {"path": str(place / "old.ram"), "size": 1, "changed": 1, "inode": 1}
    (folder / "checkpoint.json").write_text(json.dumps({"name": "old", "format": 1, "ram": memory}))
    said = command("host", "repair").stdout
    assert "removed checkpoint old: an older tinamou took it, and its memory lay open to every user of this host" in said
    assert f"removed {place}" in said
    assert not place.exists()
    assert not folder.exists()
