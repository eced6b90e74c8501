"""A frozen guest is thawed whatever happens to the command that froze it; and the picture of the history."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tinamou.snapshots import thaw_watch
from tinamou.snapshots.history import History, Snapshot
from tinamou.snapshots.picture import draw


class Watched:
    """A watcher, the pipe it listens to, and an agent's socket that answers with what it is told to."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(folder / "agent.sock"))
        self.server.listen()
        read, self.pipe = os.pipe()
        argv = [sys.executable, "-I", "-S", thaw_watch.__file__, str(read), str(folder / "agent.sock"), str(seconds)]
        self.process = subprocess.Popen(argv, pass_fds=[read])
        os.close(read)

    def asked(self, answer: bytes) -> bytes:
        self.server.settimeout(60)
        line, _ = self.server.accept()
        with line:
            request = line.recv(4096)
            line.sendall(answer)
        return request


def test_nothing_is_thawed_when_all_went_well(tmp_path: Path) -> None:
    watched = Watched(tmp_path, 60)
    os.write(watched.pipe, b".")
    assert watched.process.wait(60) == 0
    watched.server.setblocking(False)
    with pytest.raises(BlockingIOError):
        watched.server.accept()


def test_thawed_when_the_freezer_is_killed(tmp_path: Path) -> None:
    watched = Watched(tmp_path, 600)
    os.close(watched.pipe)
    assert b"guest-fsfreeze-thaw" in watched.asked(b'{"error": {"class": "GenericError"}}\n')
    assert b"guest-fsfreeze-thaw" in watched.asked(b'{"return": 1}\n')
    assert watched.process.wait(60) == 0


def test_thawed_when_the_time_is_up(tmp_path: Path) -> None:
    watched = Watched(tmp_path, 0.1)
    assert b"guest-fsfreeze-thaw" in watched.asked(b'{"return": 1}\n')
    assert watched.process.wait(60) == 0


def test_the_picture_shows_branches_and_now() -> None:
    shots = (Snapshot(1, "one", {}), Snapshot(2, "two", {}, parent=1), Snapshot(3, "other", {}, parent=1, note="why"))
    lines = draw(History(snapshots=shots, current=3)).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["○ one", "├─ ○ two", "└─ ○ other", ""]
    assert lines[-1].strip() == "└─ ● now"
    assert lines[2].endswith("why")
    assert draw(History()) == "● now"
