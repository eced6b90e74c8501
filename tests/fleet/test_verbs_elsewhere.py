"""The command line and other hosts, each of which is a real ssh server with a tinamou that has a state of its own."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sshd_here import DEADLINE, Sshd, command, make_key, sshd
from typed import eventually

from tinamou.cli import all_hosts, all_looks
from tinamou.errors import HostError
from tinamou.fleet import hosts
from tinamou.fleet.asking import Answer
from tinamou.version import __version__

ME = [sys.executable, "-m", "tinamou"]


def tinamou(*words: str, **how: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*ME, *words], capture_output=True, timeout=DEADLINE, check=False, **how)  # type: ignore[call-overload]


@pytest.fixture
def far(server: Sshd, tmp_path: Path) -> Path:
    """A host of that name is known; its state directory."""
    there = tmp_path / "there"
    there.mkdir()
    hosts.add(server.host(state=there))
    return there


def test_a_host_is_added_only_by_its_fingerprint(server: Sshd, tmp_path: Path) -> None:
    line = ["host", "add", "far", "127.0.0.1", "--port", str(server.port), "--identity", server.identity, "--timeout", "120"]
    line += ["--command", " ".join(command(tmp_path))]
    refused = tinamou(*line, stdin=subprocess.DEVNULL)
    right = server.host().fingerprint
    assert refused.returncode == 110 and right.encode() in refused.stderr
    make_key(tmp_path / "other")
    other = hosts.fingerprint((tmp_path / "other.pub").read_text())
    assert tinamou(*line, "--fingerprint", other).returncode == 110
    assert hosts.every() == []
    added = tinamou(*line, "--fingerprint", right)
    assert added.returncode == 0, added.stderr
    assert hosts.find("far").key == server.key
    assert tinamou("host", "check", "far").stdout.split()[-3:] == [b"far", b"yes", b"0"]
    assert json.loads(tinamou("host", "ls", "--json").stdout)[0]["fingerprint"] == right
    assert tinamou("host", "rm", "far").returncode == 0
    assert hosts.every() == []


@pytest.mark.parametrize("said, known", [("yes", True), ("no", False), ("SHA256:x", False)])
def test_a_person_is_asked(server: Sshd, tmp_path: Path, said: str, known: bool) -> None:
    line = ["host", "add", "far", "127.0.0.1", "--port", str(server.port), "--identity", server.identity, "--timeout", "120"]
    printed, status = at_terminal([*ME, *line, "--command", " ".join(command(tmp_path))], b"(yes, no", f"{said}\n".encode())
    assert server.host().fingerprint.encode() in printed
    assert (status == 0) is known
    assert bool(hosts.every()) is known


def test_nobody_there_is_no_host() -> None:
    done = tinamou("host", "add", "far", "127.0.0.1", "--port", "1")
    assert done.returncode == 120 and b"no ssh server answers" in done.stderr


def at_terminal(argv: Sequence[str], cue: bytes, typed: bytes) -> tuple[bytes, int]:
    """What a command prints at a terminal of its own, where ``typed`` is typed once it said ``cue``; its status."""
    pid, line = pty.fork()
    if not pid:
        os.execvpe(argv[0], list(argv), os.environ)
    printed, deadline = b"", time.monotonic() + DEADLINE
    try:
        while time.monotonic() < deadline and select.select([line], [], [], DEADLINE)[0]:
            try:
                piece = os.read(line, 4096)
            except OSError:  # the terminal is nobody's any more
                break
            if not piece:
                break
            if cue not in printed and cue in printed + piece:
                os.write(line, typed)
            printed += piece
    finally:
        os.close(line)
        _, status = os.waitpid(pid, 0)
    return printed, os.waitstatus_to_exitcode(status)


def test_a_verb_runs_there(far: Path) -> None:
    done = tinamou("-H", "far", "ls", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert (far / "machines").is_dir()
    done = tinamou("-H", "far", "show", "nobody", "--json")
    assert done.returncode == 118 and json.loads(done.stdout)["error"] == "there is no machine named nobody"
    done = tinamou("-H", "far", "no-such-verb")
    assert done.returncode == 2 and b"there is no verb" in done.stderr
    assert b"List machines" in tinamou("-H", "far", "ls", "--help").stdout


def test_words_and_bytes_pass(server: Sshd) -> None:
    """Whatever stands behind ``--``, and the streams: a program in tinamou's place shows them."""
    show = (
        "import sys; o = sys.stdout; print(sys.argv[1:], flush=True); o.buffer.write(sys.stdin.buffer.read()); sys.exit(255)"
    )
    hosts.add(server.host(command=(sys.executable, "-c", show)))
    data = bytes(range(256))
    done = tinamou("-H", "far", "exec", "a b", "--", "-x", "--", "$HOME 'q'", input=data)
    first, _, rest = done.stdout.partition(b"\n")
    assert first.decode() == str(["exec", "a b", "--", "-x", "--", "$HOME 'q'"])
    assert (rest, done.stderr, done.returncode) == (data, b"", 255)


def test_a_terminal_is_one_there_too(server: Sshd) -> None:
    show = "import os, sys; print('there', os.isatty(0), os.isatty(1)); sys.exit(len(input()))"
    hosts.add(server.host(command=(sys.executable, "-c", show)))
    printed, status = at_terminal([*ME, "-H", "far", "run"], b"there", b"four\n")
    assert b"there True True" in printed
    assert status == 4


def test_what_goes_wrong_on_the_way_is_said_as_ever(server: Sshd, tmp_path: Path) -> None:
    hosts.add(server.host("gone", port=1))
    done = tinamou("-H", "gone", "ls", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == said["code"] == 120 and said["stage"] == "host" and "refused" in said["why"]
    make_key(tmp_path / "other")
    hosts.add(server.host("false", key=" ".join((tmp_path / "other.pub").read_text().split()[:2])))
    done = tinamou("-H", "false", "ls")
    assert done.returncode == 120 and b"is not false: SHA256:" in done.stderr
    assert tinamou("-H", "nobody", "ls").returncode == 118
    assert tinamou("-H").returncode == tinamou("-H", "gone").returncode == 2


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_who_is_ended_here_ends_there(far: Path, number: int, status: int) -> None:
    """``tinamou watch`` writes nothing and reads nothing: only the end of the line tells it."""
    caller = subprocess.Popen([*ME, "-H", "far", "watch"], start_new_session=True)
    try:
        eventually(lambda: _watching(far), "a watch", DEADLINE)
        watching = _watching(far)
        os.killpg(caller.pid, number)
        assert caller.wait(DEADLINE) == status
        eventually(lambda: watching[0] not in _watching(far), "its end", DEADLINE)
    finally:
        caller.kill()
        caller.wait()


def _watching(state: Path) -> list[int]:
    """The processes of a watch of that state directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            there = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[-2:-1] == [b"watch"] and f"TINAMOU_STATE={state}".encode() in there and b"tinamou" in words:
            found.append(int(entry.name))
    return found


def test_all_hosts_are_listed_and_silence_is_silence(far: Path, server: Sshd, tmp_path: Path) -> None:
    assert tinamou("ls", "--all-hosts").returncode == 0
    with sshd(tmp_path / "hung") as hung:
        hosts.add(hung.host("hung", state=tmp_path, patience=1.0))
        hung.process.send_signal(signal.SIGSTOP)
        done = tinamou("ls", "--all-hosts", "--json")
        assert done.returncode == 120, done
        told = {one["host"]: one for one in json.loads(done.stdout)}
        assert list(told) == ["here", "far", "hung"]
        assert told["here"]["machines"] == told["far"]["machines"] == []
        assert told["hung"]["error"]["stage"] == "host"
        hosts.add(server.host("other", command=("sh", "-c", "echo 99.0")))
        done = tinamou("ls", "--all-hosts")
        assert b"hung is silent" in done.stderr and b"other: other has tinamou 99.0" in done.stderr
        assert [line.split() for line in done.stdout.splitlines()[1:]] == [[b"hung", b"silent"], [b"other", b"error"]]


def test_the_doctor_of_all_hosts(far: Path, server: Sshd) -> None:
    done = tinamou("doctor", "--all-hosts", "--json")
    told = {one["host"]: one["doctor"] for one in json.loads(done.stdout)}
    assert list(told) == ["here", "far"]
    assert {one["check"] for one in told["here"]["findings"]} == {one["check"] for one in told["far"]["findings"]}
    assert done.returncode == max(one["status"] for one in told.values())
    assert tinamou("doctor", "--all-hosts", "--fix").returncode == 110


def test_top_of_all_hosts(far: Path, server: Sshd, tmp_path: Path) -> None:
    """Each tells by itself, again and again; one that stops telling is silent, and one that lies is an error."""
    lying = 'import sys; print("{\\"machines\\": [{}]}" if "top" in sys.argv else "[]")'
    said = f"case $* in *--version*) echo {__version__} ;; *) exec {sys.executable} -c '{lying}' \"$@\" ;; esac"
    hosts.add(server.host("liar", command=("sh", "-c", said, "sh")))
    with sshd(tmp_path / "hung") as hung:
        hosts.add(hung.host("hung", state=tmp_path, patience=10.0))
        out = tmp_path / "out"
        with out.open("w") as file:
            top = subprocess.Popen([*ME, "top", "--all-hosts", "--json", "--interval", "0.5"], stdout=file)
        try:
            eventually(lambda: _told(out)["hung"].get("machines") == [], "a look at the other host", DEADLINE)
            stopped = [hung.process.pid, *_children(hung.process.pid)]
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            eventually(lambda: "error" in _told(out)["hung"], "its silence", DEADLINE)
            told = _told(out)
            assert list(told) == ["here", "far", "hung", "liar"]
            assert told["here"]["machines"] == told["far"]["machines"] == []
            assert told["far"]["memory"]["total"] > 1 << 20
            assert told["hung"]["error"]["error"].startswith("hung ")
            assert "no look at its machines" in told["liar"]["error"]["error"]
            top.send_signal(signal.SIGINT)
            assert top.wait(DEADLINE) == 0
        finally:
            top.kill()
            top.wait()
            for pid in stopped[1:]:
                os.kill(pid, signal.SIGCONT)
    assert tinamou("top", "web", "--all-hosts").returncode == 110


def _children(pid: int) -> list[int]:
    """All that a process has started, and those have."""
    found = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*found, *(deeper for one in found for deeper in _children(one))]


def _told(out: Path) -> dict[str, Any]:
    """What was told of each host last."""
    lines = out.read_text().split("\n")[:-1]
    return {one["host"]: one for one in json.loads(lines[-1])["hosts"]} if lines else {"hung": {}}


def test_a_machine_of_another_host_is_a_line_and_what_is_none_is_refused() -> None:
    one = {
        "name": "web",
        "state": "running",
        "cpu": {"vcpus": 2, "percent": 12.4},
        "memory": {"size": 512 << 20, "balloon": 256 << 20, "guest": None, "host": {"rss": 300 << 20, "swap": 0}},
        "per_second": {"read": 1 << 20, "written": 0.0, "received": None, "sent": None},
    }
    numbers = ["12%", "-", "-", "256M/512M", "300M", "0", "1M", "0", "-", "-"]
    assert all_looks.cells("h2", one) == ["h2", "web", "running", *numbers]
    with pytest.raises((KeyError, TypeError, ValueError)):
        all_looks.cells("h2", {**one, "cpu": {"percent": "much"}})


def test_machines_of_one_name_on_two_hosts_are_told_of() -> None:
    web, db = {"name": "web", "state": "running"}, {"name": "db", "state": "running"}
    gone = {"name": "db", "state": "moved"}
    answers = [Answer("here", [web, gone]), Answer("h2", [web, db]), Answer("h3", error=HostError("silent"))]
    assert all_hosts.twice(answers) == {"web": ["here", "h2"]}
