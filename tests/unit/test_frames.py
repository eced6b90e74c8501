"""A connection is held where a frame ends, though frames are long and both ends are busy; and put into another process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typed import eventually

from tinamou.system import frames
from tinamou.system.holding import why_not
from tinamou.system.inject import begin
from tinamou.system.spawn import Process, process_of, send

FRAME = 4 + 60000
WRITER = """
import select, socket, sys
line = socket.socket(fileno=int(sys.argv[1]))
frame = (60000).to_bytes(4, "big") + bytes(60000)
waits = select.epoll()
while True:
    waits.poll(0.001)
    for _ in range(5):
        line.sendall(frame)
"""
"""As passt: it waits for what comes next, and sends a batch that the kernel has no room for at once."""
READER = """
import os, sys, time
line, said, read = int(sys.argv[1]), int(sys.argv[2]), 0
while True:
    read += len(os.read(line, 69632))
    os.pwrite(said, b"%020d" % read, 0)
    time.sleep(0.0005)
"""
"""As QEMU: as much at a time as there is, up to a bound. How much in all is in the file."""


@dataclass
class Pair:
    """A writer, a reader, our own descriptor of the reader's end, and the file of how much was read."""

    writer: Process
    reader: Process
    line: int
    said: Path

    def read(self) -> int:
        return int(self.said.read_text() or 0)

    def stands(self) -> int:
        """How much was read, when no more comes."""
        found = [-1]

        def same() -> bool:
            found.append(self.read())
            return found[-1] == found[-2]

        eventually(same, "that no more is read")
        return found[-1]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        (tmp_path / "said").open("w+b") as said,
        subprocess.Popen([sys.executable, "-c", WRITER, str(theirs.fileno())], pass_fds=[theirs.fileno()]) as writer,
        subprocess.Popen(
            [sys.executable, "-c", READER, str(ours.fileno()), str(said.fileno())], pass_fds=[ours.fileno(), said.fileno()]
        ) as reader,
    ):
        try:
            one = Pair(process_of(writer.pid), process_of(reader.pid), ours.fileno(), tmp_path / "said")
            eventually(lambda: one.read() > 0, "the first frame")
            yield one
        finally:
            writer.kill()
            reader.kill()


@pytest.mark.parametrize("seen", [True, False])
def test_it_is_held_at_the_end_of_a_frame(seen: bool, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    if not seen:  # what another user's process, or one that has shut itself off, is doing
        monkeypatch.setattr(frames, "_call", lambda pid: None)
    elif frames._call(pair.writer.pid) is None:
        pytest.skip("this kernel does not say what a process is doing")
    for _ in range(20):
        assert frames.hold(pair.writer, pair.reader, pair.line, 60)
        before = pair.read()
        assert pair.stands() % FRAME == 0
        frames.let_go(pair.writer)
        eventually(lambda before=before: pair.read() > before, "that it goes on")


def test_a_writer_that_is_merely_stopped_is_in_the_middle_of_one(pair: Pair) -> None:
    """What the test before looks at can be wrong."""

    def cut() -> bool:
        send(pair.writer, signal.SIGSTOP)
        found = pair.stands() % FRAME
        send(pair.writer, signal.SIGCONT)
        return found != 0

    eventually(cut, "a frame that is cut in two")


def test_where_nobody_reads_it_gives_up_and_lets_it_go_on(pair: Pair) -> None:
    send(pair.reader, signal.SIGSTOP)
    assert not frames.hold(pair.writer, pair.reader, pair.line, 0.2)
    send(pair.reader, signal.SIGCONT)
    before = pair.read()
    eventually(lambda: pair.read() > before, "that it goes on")


def test_who_is_at_the_other_end_the_kernel_says(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listens = f"import socket, time; s = socket.socket(1); s.bind({path!r}); s.listen(); c = s.accept(); time.sleep(1000)"
    connects = f"import socket, time; a = socket.socket(1); b = socket.socket(1); b.connect({path!r}); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", listens]) as one:
        eventually(Path(path).exists, "a socket")
        with subprocess.Popen([sys.executable, "-c", connects]) as two:
            try:
                there = lambda: sum("socket:" in os.readlink(f) for f in Path(f"/proc/{two.pid}/fd").iterdir()) == 2  # noqa: E731, PTH115
                eventually(there, "a connection")
                eventually(lambda: found(two.pid, process_of(one.pid)), "the connection to it")
                assert not found(two.pid, process_of(os.getpid()))
            finally:
                one.kill()
                two.kill()


def found(pid: int, other: Process) -> bool:
    try:
        os.close(frames.connection(pid, other))
    except FileNotFoundError:
        return False
    return True


@pytest.mark.skipif(bool(why_not()), reason=f"no process can be held here: {why_not()}")
def test_a_connection_becomes_what_stood_in_for_it() -> None:
    real, far = socket.socketpair()
    stand_in, other = socket.socketpair()
    line = stand_in.fileno()
    script = f"import os, sys; print(flush=True); sys.stdin.read(1); os.write({line}, b'hello'); os.read({line}, 1)"
    words = [sys.executable, "-c", script]
    with (
        real,
        far,
        stand_in,
        other,
        subprocess.Popen(
            words, pass_fds=[stand_in.fileno(), real.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        begin(lambda: frames.put_in(process.pid, stand_in.fileno(), real.fileno())).result()
        process.stdin.write(b"\n")
        process.stdin.flush()
        far.settimeout(60)
        assert far.recv(10) == b"hello"
        links = [os.readlink(one) for one in Path(f"/proc/{process.pid}/fd").iterdir()]  # noqa: PTH115
        assert links.count(f"socket:[{os.fstat(real.fileno()).st_ino}]") == 1
        with pytest.raises(FileNotFoundError, match="has lost a connection"):
            frames.put_in(process.pid, stand_in.fileno(), real.fileno())
        process.kill()
