"""What cannot be twice in copies of a machine; and shared folders over whatever ends or restarts a guest."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from placed import free_port
from typed import call, tinamou

from tinamou import Machine
from tinamou.errors import StateError
from tinamou.machine.checkpoints import every
from tinamou.snapshots.resting import discard
from tinamou.system.threads import inside

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

MAC = "52:54:00:d0:0d:01"


@pytest.fixture(autouse=True)
def kept_no_checkpoint() -> Iterator[None]:
    """Checkpoints stay when machines go; a test's own must not."""
    yield
    for one in every():
        discard(Path(one.directory))


def greeted(path: Path) -> bytes:
    """The first words of a VNC server."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(20)
        client.connect(str(path))
        return client.recv(3)


def test_screens_and_cards_are_each_ones_own(leftovers) -> None:
    net = [{"type": "user", "mac": MAC}]
    with Machine(forkable=True, display="vnc", net=net) as source, contextlib.ExitStack() as stack:
        forks = [stack.enter_context(fork) for fork in source.fork(2)]
        screens = [one.record.file("run") / "vnc.sock" for one in (source, *forks)]
        assert [greeted(screen) for screen in screens] == [b"RFB"] * 3
        cards = [one.run("cat /sys/class/net/eth0/address").text for one in (source, *forks)]
        assert cards[0] == MAC and len(set(cards)) == 3
    assert leftovers.found() == []


def test_a_port_of_the_host_leads_into_one_machine(leftovers) -> None:
    text = f"tcp:127.0.0.1:{free_port()}:80"
    with Machine(forkable=True, net=[{"type": "user", "forward": [text]}]) as source:
        with pytest.raises(StateError, match="forward") as error:
            source.fork()
        assert [problem.path for problem in error.value.problems] == ["net[0].forward"]
        assert error.value.problems[0].value == text
        source.checkpoint("ported")
    assert "2 machines cannot have the same port" in call("fork", "ported", "-n", "2").stderr
    name = tinamou("fork", "ported").strip()
    assert "net[0].forward" in call("fork", "ported").stderr
    tinamou("rm", "-f", name)
    leftovers.remove_checkpoints()
    assert leftovers.found() == []


@pytest.mark.usefixtures("whole_host")
def test_a_copy_is_pinned_to_cpus_of_its_own(leftovers) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU cannot be two machines' own")
    with Machine(cpu={"pin": "auto", "strict": True}, net=[]) as source, source.fork() as fork:
        assert fork.record.pinning and fork.record.pinning != source.record.pinning
        [vcpu] = fork.qmp("query-cpus-fast")
        thread = inside(fork.record.pid)[vcpu["thread-id"]]
        assert sorted(os.sched_getaffinity(thread)) == [int(cpu) for cpu in fork.record.pinning]
    assert leftovers.found() == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one file."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/greeting").write_text("hello\n")
    return tmp_path / "data"


@pytest.mark.root
@pytest.mark.virtiofsd
def test_shared_folders_outlive_resets_suspensions_and_checkpoints(folder: Path, leftovers) -> None:
    def reads() -> bool:
        return tinamou("exec", "web", "--", "cat", "/srv/data/greeting") == "hello\n"

    tinamou("run", "-d", "--name", "web", "--share", f"{folder}:/srv/data:ro")
    try:
        assert reads()
        tinamou("reset", "web")
        assert reads()
        tinamou("suspend", "web")
        tinamou("resume", "web")
        assert reads()
        assert call("exec", "web", "--", "touch", "/srv/data/new").returncode
        tinamou("checkpoint", "web", "moment")
        assert reads()
        tinamou("rm", "-f", "web")
        tinamou("checkpoints", "restore", "moment")
        assert reads()
        tinamou("exec", "web", "--", "sh", "-c", "cd /srv/data && (sleep 1000 >/dev/null 2>&1 &)")
        assert "cannot be taken out" in call("suspend", "web").stderr
        assert reads()
    finally:
        tinamou("rm", "-f", "web")
        tinamou("checkpoints", "rm", "-f", "moment")
    assert leftovers.found() == []


@pytest.mark.root
@pytest.mark.virtiofsd
def test_a_guest_nobody_waits_for_is_told_how_to_mount(folder: Path, leftovers) -> None:
    done = call("run", "-d", "--no-wait", "--name", "web", "--share", f"{folder}:/srv/data")
    try:
        assert (done.returncode, "mount -t virtiofs share0 /srv/data" in done.stderr) == (0, True), done.stderr
        script = "mkdir -p /srv/data; mount -t virtiofs share0 /srv/data; cat /srv/data/greeting"
        assert tinamou("exec", "web", "--", "sh", "-c", script) == "hello\n"
    finally:
        tinamou("rm", "-f", "web")
    assert leftovers.found() == []
