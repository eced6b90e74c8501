"""Logs that QEMU, a helper or a guest fills: they stay short, hold nobody up, and no terminal is sent what is in them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
from lying import machine
from typed import eventually

from tinamou.guest.diagnose import clean, diagnose
from tinamou.monitor.console import kills, last_boot, panic
from tinamou.monitor.look import printed
from tinamou.prepare.logs import pipes_into
from tinamou.system import logs
from tinamou.system.spawn import found_started, locked


def test_a_log_is_kept_in_two_files(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"before\n")
    Path(f"{log}.1").write_bytes(b"of an earlier start")
    lines = [f"{number:09}\n".encode() * 1000 for number in range(1500)]
    with pipes_into(log) as [end]:
        for line in lines:
            os.write(end, line)
    logs.complete(log)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= logs.FULL + (64 << 10)
    whole = b"before\n" + b"".join(lines)
    assert whole.endswith(logs.kept(log))
    assert logs.tail(log, 100) == whole[-100:]
    assert logs.last_lines(log, 2) == "000001499\n000001499"


def test_the_writer_outlives_who_started_it(tmp_path):
    log, go = tmp_path / "log", tmp_path / "go"
    script = (
        "import os, pathlib, time\nfrom tinamou.prepare.logs import pipes_into\n"
        "with pipes_into(pathlib.Path({0!r})) as [end]:\n"
        "    if os.fork(): os._exit(0)\n"
        "    while not os.path.exists({1!r}): time.sleep(0.01)\n"
        "    os.write(end, b'much later'); os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", script.format(str(log), str(go))], check=True)
    assert locked(log)
    go.touch()
    assert found_started(lambda: None if locked(log) else "ended", log) == "ended"
    assert log.read_bytes() == b"much later"


def test_no_process_is_left(tmp_path):
    before = set(children())
    for _ in range(3):
        with pipes_into(tmp_path / "log") as [end]:
            os.write(end, b"x")
        logs.complete(tmp_path / "log")
    eventually(lambda: set(children()) <= before, "the end of all writers")


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_a_full_disk_holds_nobody_up(tmp_path):
    log = tmp_path / "gone" / "log"
    log.parent.mkdir()
    with pipes_into(log) as [end]:
        log.unlink()
        log.parent.rmdir()
        for _ in range(64):
            os.write(end, b"x" * (1 << 20))


@pytest.mark.parametrize("kind", ["fifo", "symlink", "hard link", "folder's"])
def test_a_file_that_is_no_log_makes_way(tmp_path, kind):
    log, other = tmp_path / "log", tmp_path / "other"
    other.write_bytes(b"precious")
    if kind == "fifo":
        os.mkfifo(log)
    elif kind == "symlink":
        log.symlink_to(other)
    elif kind == "hard link":
        os.link(other, log)
    with pipes_into(log) as [end]:
        os.write(end, b"said")
    logs.complete(log)
    assert (logs.kept(log), other.read_bytes()) == (b"said", b"precious")


def test_what_is_no_log_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "log")
    assert logs.tail(tmp_path / "log") == logs.kept(tmp_path / "log") == logs.Followed(tmp_path / "log").more() == b""


def test_a_log_that_was_made_long_is_read_at_its_end(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        log.truncate(1 << 40)
        log.seek(0, 2)
        log.write(b"\nthe end")
    assert logs.last_lines(tmp_path / "log", 1) == "the end"
    assert len(logs.kept(tmp_path / "log")) < 3 * logs.FULL


def test_following_across_a_new_beginning(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"one ")
    followed = logs.Followed(log, 2)
    assert followed.more() == b"e "
    with log.open("ab") as file:
        file.write(b"two ")
    log.rename(logs.older(log))
    log.write_bytes(b"three")
    assert followed.more() == b"two three"
    assert followed.more() == b""


HOSTILE = b"\x1b]0;owned\x07\x1b[2Jhello\x9b31m\r\n"


def test_logs_on_a_terminal_and_in_a_pipe(state):
    with machine("one") as record:
        record.file("serial.log").write_bytes(HOSTILE * 3)
        argv = [sys.executable, "-m", "tinamou", "logs", "one", "-n", "1"]
        assert subprocess.run(argv, capture_output=True, check=True).stdout == HOSTILE
        ours, theirs = pty.openpty()
        subprocess.run(argv, stdout=theirs, stdin=subprocess.DEVNULL, check=True)
        shown = b""
        while not shown.endswith(b"\r\n") and select.select([ours], [], [], 60)[0]:
            shown += os.read(ours, 4096)
        os.close(ours)
        os.close(theirs)
        assert shown == rb"\x1b]0;owned\x07\x1b[2Jhello" + "\ufffd".encode() + b"31m\r\n"


def test_following_ends_with_the_machine(state):
    with machine("one") as record:
        record.file("serial.log").write_bytes(b"first\n")
        argv = [sys.executable, "-m", "tinamou", "logs", "one", "-f"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as following:
            assert following.stdout is not None
            assert following.stdout.readline() == b"first\n"
            with record.file("serial.log").open("ab") as log:
                log.write(b"second\n")
            assert following.stdout.readline() == b"second\n"
            os.kill(record.pid, 9)
            assert following.wait(120) == 0


PIECES = ["\r", "\n\t", "\x1b[", "\x1b]", "\x1b ", "Run ", "Out of memory: Killed process 1 (", "[ ", ") ", "9"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("piece", PIECES)
def test_no_console_takes_for_ever_to_read(tmp_path, piece):
    log = tmp_path / "serial.log"
    log.write_text(f"Out of memory: Killed process 1 ({piece * (1 << 20)}"[: 1 << 20])
    assert clean(log.read_bytes()) is not None
    text = printed(log, 0)
    diagnose(text)
    kills(text)
    panic(text)


def test_numbers_no_kernel_prints():
    digits = "9" * 5000
    assert kills(f"Out of memory: Killed process {digits} (x) total-vm:1kB, anon-rss:{digits}kB\n") == []
    assert last_boot(f"[{digits}.1] x\n[    1.0] y\n")
