"""Commands in real guests as docker users type them: terminals, users, folders, variables, streams of any size."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typed import TINAMOU, begin, call, eventually

from tinamou.images import cpio
from tinamou.images.resolve import resolve

pytestmark = pytest.mark.vm

PROMPT = rb"[#$] (\x1b\[6n)?$"
"""With the question for the cursor's place that busybox's shell asks."""


class Terminal:
    """A terminal of a test's own, and the tinamou command that runs at it."""

    def __init__(self, *words: str) -> None:
        self.ours, self.theirs = pty.openpty()
        self.size(100, 30, tell=False)
        self.before = termios.tcgetattr(self.theirs)
        self.process = subprocess.Popen(
            [*TINAMOU, *words],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "vt220"},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def size(self, columns: int, rows: int, *, tell: bool = True) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self.ours, text)

    def until(self, wanted: bytes, seconds: float = 90) -> bytes:
        got, end = b"", time.monotonic() + seconds
        while not re.search(wanted, got) and time.monotonic() < end:
            if select.select([self.ours], [], [], 0.1)[0]:
                got += os.read(self.ours, 65536)
        assert re.search(wanted, got), got
        return got

    def ended(self, status: int) -> None:
        """It ends so, and the terminal is as it was."""
        assert self.process.wait(timeout=60) == status
        assert termios.tcgetattr(self.theirs) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@contextlib.contextmanager
def at_a_terminal(*words: str) -> Iterator[Terminal]:
    terminal = Terminal(*words)
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.fixture
def web():
    done = call("run", "-d", "--name", "web")
    assert (done.returncode, done.stdout) == (0, "web\n"), done.stderr
    yield "web"
    call("rm", "-f", "web")


def test_a_shell(web, leftovers):
    with at_a_terminal("exec", "-it", web, "--", "sh", "-i") as one, at_a_terminal("exec", "-it", web, "--", "sh") as other:
        one.until(PROMPT)
        one.type(b"stty size; echo $TERM $HOME; tty\n")
        said = one.until(rb"/dev/pts/\d")
        assert b"30 100\r\n" in said and b"vt220 /root\r\n" in said
        one.size(80, 24)
        one.type(b"until stty size | grep -q '24 80'; do sleep 0.1; done; stty size\n")
        one.until(rb"(?s)24 80\r\n.*" + PROMPT)
        one.type(b"sleep 600\n")
        eventually(lambda: call("exec", web, "--", "pidof", "sleep").returncode == 0, "the command")
        one.type(b"\x03")
        one.until(rb"(?s)sleep 600.*" + PROMPT)
        other.until(PROMPT)
        other.type(b"echo the 'other'\n")
        other.until(rb"the other\r\n")
        eventually(lambda: call("exec", web, "--", "pidof", "sleep").returncode == 1, "the end of the command")
        one.type(b"exit 5\n")
        one.ended(5)
        other.process.send_signal(signal.SIGTERM)
        other.ended(143)
        eventually(lambda: "sh -i" not in call("exec", web, "--", "ps").stdout, "the end of the shells")
    assert call("rm", "-f", web).returncode == 0
    assert leftovers.found() == []


def test_a_terminal_is_left_as_it_was_however_it_ends(web):
    with at_a_terminal("exec", "-it", web, "--", "sh") as terminal:
        terminal.until(PROMPT)
        terminal.type(b"\r~.")
        terminal.until(rb"was left")
        terminal.ended(116)
    with at_a_terminal("exec", "-it", web, "--", "nosuch") as terminal:
        terminal.until(rb"could not start nosuch")
        terminal.ended(127)
    with at_a_terminal("exec", "-it", web, "--", "sh") as terminal:
        terminal.until(PROMPT)
        terminal.type(b"reboot -f\n")
        terminal.until(rb"restarted|ended")
        terminal.ended(116)
    eventually(lambda: call("exec", web, "--", "true").returncode == 0, "the guest again")
    with at_a_terminal("exec", "-it", web, "--", "sh") as terminal:
        terminal.until(PROMPT)
        assert call("kill", web).returncode == 0
        terminal.until(rb"ended")
        terminal.ended(116)


def test_every_byte_passes_a_terminal(web):
    data = bytes(range(256)) * 32
    script = f"stty raw -echo; echo ready; exec head -c {len(data)}"
    with at_a_terminal("exec", "-it", web, "--", "sh", "-c", script) as terminal:
        terminal.until(rb"ready\n$")
        terminal.type(data)
        got = b""
        while len(got) < len(data):
            got += terminal.until(rb"(?s).")
        assert got == data
        terminal.ended(0)


def test_users_folders_and_variables(web, monkeypatch):
    monkeypatch.setenv("FROM_HERE", "this host's")
    show = "echo $USER $HOME $ONE $FROM_HERE; id -u; pwd"
    words = ["exec", "-e", "ONE=1 = one", "--env", "FROM_HERE", "-w", "/tmp", "-u", "nobody", web, "--", "sh", "-c", show]
    done = call(*words)
    assert (done.returncode, done.stdout) == (0, "nobody /nonexistent 1 = one this host's\n65534\n/tmp\n"), done.stderr
    said = call("exec", web, "--", "env").stdout.split("\n")
    assert {"HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/sh"} <= set(said)
    for words, code, wanted in (
        (["-u", "nosuch"], 116, "no user nosuch"),
        (["-w", "/no/such"], 116, "folder /no/such"),
        (["-e", "NOT_SET_HERE"], 110, "no such variable"),
        (["-e", "=x"], 110, "NAME=VALUE"),
        (["-t"], 110, "not a terminal"),
    ):
        done = call("exec", *words, web, "--", "true")
        assert done.returncode == code and wanted in done.stderr, done.stderr
    assert call("exec", web, "--", "nosuch").returncode == 127


def test_streams_of_any_size(web, tmp_path):
    data = os.urandom(20_000_000)
    (tmp_path / "in").write_bytes(data)
    with (tmp_path / "in").open("rb") as file:
        done = subprocess.run([*TINAMOU, "exec", web, "--", "sha256sum"], stdin=file, capture_output=True, check=True)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    words = [*TINAMOU, "exec", web, "--", "dd", "if=/dev/zero", "bs=65536", "count=458"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert len(done.stdout) == 458 << 16
    words = [*TINAMOU, "exec", web, "--", "cat"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        for word in (b"one\n", b"two\n"):
            cat.stdin.write(word)
            cat.stdin.flush()
            assert cat.stdout.readline() == word
        cat.stdin.close()
        assert cat.wait(60) == 0


@pytest.mark.slow
def test_a_warm_copy_carries_streams_of_any_size(leftovers):
    data = os.urandom(20_000_000)
    done = subprocess.run([*TINAMOU, "run", "--warm", "--", "cat"], input=data, capture_output=True, check=True)
    assert done.stdout == data


def test_a_machine_that_is_being_started_is_waited_for(leftovers):
    starting = begin("run", "-d", "--name", "web")
    try:
        eventually(lambda: call("show", "web").returncode == 0, "the machine's record")
        done = call("exec", "web", "--", "hostname")
        assert (done.returncode, done.stdout) == (0, "web\n"), done.stderr
        assert starting.wait(timeout=120) == 0
    finally:
        starting.kill()
        call("rm", "-f", "web")
    assert leftovers.found() == []


def test_a_throw_away_shell_and_a_second_one_in_it(leftovers):
    with at_a_terminal("run", "-it", "--name", "web", "-e", "A=b", "--", "sh") as one:
        one.until(PROMPT)
        one.type(b"echo $A; hostname\n")
        assert b"b\r\nweb\r\n" in one.until(rb"(?s)web\r\n.*" + PROMPT)
        with at_a_terminal("exec", "-it", "web", "--", "sh") as other:
            other.until(PROMPT)
            other.type(b"exit 4\n")
            other.ended(4)
        one.type(b"exit 3\n")
        one.ended(3)
    assert leftovers.found() == []


def test_a_guest_without_the_resident(tmp_path, leftovers):
    """Commands go through its agent; the first terminal brings the program that makes terminals."""
    image = resolve("tiny", "x86_64")
    without = cpio.archive({"usr/lib/tinamou/resident": cpio.file(b"#!/bin/sh\n", 0o755)})
    (tmp_path / "initrd").write_bytes(Path(image.initrd).read_bytes() + without)
    tmp_path.chmod(0o755)
    boot = ["--kernel", image.kernel, "--initrd", str(tmp_path / "initrd"), "--cmdline", image.cmdline]
    assert call("run", "-d", "--name", "web", *boot).returncode == 0
    try:
        show = "echo $USER $HOME $A; id -u; pwd; cat"
        done = call("exec", "-u", "nobody", "-w", "/tmp", "-e", "A=b", "web", "--", "sh", "-c", show, input="in")
        assert (done.returncode, done.stdout) == (0, "nobody /nonexistent b\n65534\n/tmp\nin"), done.stderr
        assert "HOME=/root" in call("exec", "web", "--", "env").stdout.split("\n")
        assert call("exec", "web", "--", "nosuch").returncode == 127
        assert "no user nosuch" in call("exec", "-u", "nosuch", "web", "--", "true").stderr
        data = "0123456789abcdef" * 200_000
        digest = hashlib.sha256(data.encode()).hexdigest()
        assert call("exec", "web", "--", "sha256sum", input=data).stdout.split()[0] == digest
        with at_a_terminal("exec", "-it", "web", "--", "sh") as terminal:
            terminal.until(PROMPT)
            terminal.type(b"tty; exit 6\n")
            terminal.until(rb"/dev/pts/")
            terminal.ended(6)
        with at_a_terminal("exec", "-it", "web", "--", "tty") as terminal:
            terminal.until(rb"/dev/pts/")
            terminal.ended(0)
    finally:
        call("rm", "-f", "web")
    assert leftovers.found() == []


def test_what_has_no_terminal_is_said(web):
    with at_a_terminal("exec", web, "--", "sh") as terminal:
        said = terminal.until(rb"exec -it web -- sh")
        assert b"neither a terminal nor input" in said
        terminal.ended(0)
    with at_a_terminal("exec", "-i", web, "--", "cat") as terminal:
        terminal.type(b"typed\n\x04")
        terminal.until(rb"typed\r\ntyped\r\n")
        terminal.ended(0)
