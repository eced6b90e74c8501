"""The console against a real serial line: a terminal that is restored, Ctrl-], pipes, files, signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

import pytest
from running import bare, lines, qemu, run
from typed import eventually

from tinamou.errors import GuestError
from tinamou.guest.console import attach

ATTACH = "import asyncio, sys; from tinamou.guest.console import attach; sys.exit(asyncio.run(attach(sys.argv[1])))"


def read_until(descriptor, wanted, seconds=60):
    got = b""
    end = time.monotonic() + seconds
    while wanted not in got and time.monotonic() < end:
        if select.select([descriptor], [], [], 0.1)[0]:
            try:
                got += os.read(descriptor, 65536)
            except OSError:
                break
    assert wanted in got, got
    return got


class Server:
    """The guest's side of a console socket: says hello, answers what is typed in capitals."""

    def __init__(self, greeting=b"hello\r\n"):
        self.greeting = greeting
        self.typed = b""
        self.writers = []

    async def __call__(self, reader, writer):
        self.writers.append(writer)
        writer.write(self.greeting)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1000):
                self.typed += data
                writer.write(data.upper())
                if data.endswith(b"bye"):
                    break
        writer.close()


async def in_pty(directory, drive):
    """Attach in a terminal of its own; ``drive`` runs in a thread with the terminal's other side."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    argv = [sys.executable, "-c", ATTACH, str(directory)]
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs)  # noqa: ASYNC220
    try:
        await asyncio.to_thread(drive, ours, process)
        status = await asyncio.to_thread(process.wait, 60)
        assert termios.tcgetattr(theirs) == before
        return status
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


async def served(directory, work, server=None):
    listening = await asyncio.start_unix_server(server or Server(), directory / "console.sock")
    try:
        return await work
    finally:
        listening.close()


def test_type_and_detach(state):
    (state / "serial.log").write_bytes(b"old line\r\n\x1b[2J\x1b[6nlast \x1b[31mline\r\n")

    def drive(terminal, process):
        told = read_until(terminal, b"hello")
        assert b"Ctrl-]" in told and b"old line" in told and b"last line" in told
        assert b"\x1b[6n" not in told
        os.write(terminal, b"ls\x03\x1a\x04\r")
        read_until(terminal, b"LS\x03\x1a\x04\r")
        os.write(terminal, b"x\x1dafter")
        assert b"detached" in read_until(terminal, b"runs on")

    server = Server()
    assert run(served(state, in_pty(state, drive), server)) == 0
    assert server.typed == b"ls\x03\x1a\x04\rx"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_restored_on_a_signal(state, number):
    def drive(terminal, process):
        read_until(terminal, b"hello")
        process.send_signal(number)

    assert run(served(state, in_pty(state, drive))) == 128 + number


def test_the_terminal_is_restored_when_the_machine_ends(state):
    def drive(terminal, process):
        read_until(terminal, b"hello")
        os.write(terminal, b"bye")
        read_until(terminal, b"the machine has ended")

    assert run(served(state, in_pty(state, drive))) == 0


def test_the_terminal_is_restored_after_an_error(state):
    def drive(terminal, process):
        read_until(terminal, b"cannot be reached")

    assert run(in_pty(state, drive)) == 1


def test_what_the_boot_raises_ends_it(state):
    async def boot():
        await asyncio.sleep(0.2)
        raise GuestError("it panicked")

    ours, theirs = os.pipe()
    with pytest.raises(GuestError, match="it panicked"):
        run(served(state, attach(str(state), input=ours, output=os.open(os.devnull, os.O_WRONLY), boot=boot())))
    os.close(theirs)


def piped(directory, input):
    process = subprocess.run(
        [sys.executable, "-c", ATTACH, str(directory)], stdin=input, capture_output=True, timeout=120, check=True
    )
    return process.stdout


def test_scripts_may_feed_it(state):
    (state / "script").write_bytes(b"echo one\n\x1decho two\n")

    async def work():
        with (state / "script").open("rb") as script:
            return await asyncio.to_thread(piped, state, script)

    (state / "serial.log").write_bytes(b"an old line\n")
    server = Server()
    assert run(served(state, work(), server)) == b"hello\r\nECHO ONE\n\x1dECHO TWO\n"

    async def nothing():
        return await asyncio.to_thread(piped, state, subprocess.DEVNULL)

    assert run(served(state, nothing())) == b"hello\r\n"


def test_one_at_a_time(state):
    def drive(terminal, process):
        read_until(terminal, b"hello")
        with pytest.raises(GuestError, match="attached elsewhere") as caught:
            run(attach(str(state)))
        assert str(process.pid) in caught.value.why
        os.write(terminal, b"\x1d")

    assert run(served(state, in_pty(state, drive))) == 0


def test_a_real_serial_line(state):
    """SeaBIOS's own words come through QEMU's serial line."""
    argv = ["-machine", "pc,graphics=off", "-m", "64", *lines(str(state))]
    with qemu(state, *argv) as machine:
        out = os.open(state / "out", os.O_RDWR | os.O_CREAT)
        null = os.open(os.devnull, os.O_RDONLY)
        assert run(attach(machine.directory, input=null, output=out, linger=3.0)) == 0
        eventually(lambda: b"SeaBIOS" in (state / "out").read_bytes() + (state / "serial.log").read_bytes(), "its words")
        os.close(out)
        os.close(null)


def test_no_console(state):
    with bare(state) as machine, pytest.raises(GuestError, match="cannot be reached"):
        run(attach(machine.directory))
