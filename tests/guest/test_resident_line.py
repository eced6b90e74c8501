"""Terminals by the resident, and what its line survives: an end of the host, of the guest, half a frame, nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import time
from pathlib import Path

import pytest
from resident_here import gone, line_to, printed, resident_here, talk, the_end
from running import run, scripted

from tinamou.errors import GuestError
from tinamou.guest.command import command
from tinamou.guest.resident.frames import HEADER, frame
from tinamou.guest.resident.line import HeldError, Line, LineError
from tinamou.guest.resident.owed import Identity


def in_front(shell):
    """The name of the program that has the terminal of a shell (source: proc_pid_stat(5), tpgid)."""
    group = Path(f"/proc/{shell}/stat").read_text().rpartition(")")[2].split()[5]
    try:
        return Path(f"/proc/{group}/comm").read_text().strip()
    except OSError:
        return ""


def test_a_terminal(state):
    async def work(line):
        shell = await line.open(command(["sh"], env={"TERM": "vt100", "PS1": "> ", "ENV": ""}), (90, 33))
        await printed(shell, b"> ")
        await shell.write(b"stty size; tty; echo $TERM; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo a 'terminal'\n")
        said = await printed(shell, b"a terminal\r\n")
        assert b"33 90\r\n" in said and b"/dev/pts/" in said and b"vt100\r\n" in said
        shell.resize((100, 40))
        await shell.write(b"stty size\n")
        await printed(shell, b"40 100\r\n")
        await shell.write(b"sleep 600\n")
        while in_front(shell.pid) != "sleep":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await shell.write(b"\x03")
        await printed(shell, b"> ")
        await shell.write(b"trap 'echo resized' WINCH; echo set\n")
        await printed(shell, b"set\r\n> ")
        shell.resize((80, 24))
        await shell.write(b"\n")
        await printed(shell, b"resized")
        await shell.write(b"exit 5\n")
        assert await the_end(shell) == 5
        assert (await line.run(["tty"])).exit_status == 1

    talk(state, work)


def test_a_terminal_carries_every_byte(state):
    data = bytes(range(256)) * 64

    async def work(line):
        script = f"stty raw -echo; echo ready; exec head -c {len(data)}"
        session = await line.open(command(["sh", "-c", script]), (80, 24))
        await printed(session, b"ready")
        await session.write(data)
        got = b""
        while said := await session.read():
            got += said[1]
        assert got.lstrip(b"\r\n") == data.lstrip(b"\r\n")
        assert session.status == 0

    talk(state, work)


@pytest.mark.root
def test_a_terminal_belongs_to_its_user(state):
    async def work(line):
        script = "stat -c %U $(tty); echo >/dev/tty && echo open"
        session = await line.open(command(["sh", "-c", script], user="nobody"), (80, 24))
        assert b"nobody\r\n" in await printed(session, b"open\r\n")

    talk(state, work)


def test_a_terminal_that_is_left_hangs_up(state):
    async def work(line):
        session = await line.open(command(["sh", "-c", "echo ready; exec sleep 600"]), (80, 24))
        await printed(session, b"ready")
        session.leave()
        assert gone(session.pid)
        with pytest.raises(GuestError, match="given up"):
            await session.read()

    talk(state, work)


def test_what_runs_ends_with_its_host(state):
    async def work():
        with resident_here(state) as here:
            async with line_to(here) as line:
                plain = await line.open(command(["sleep", "600"]))
                shell = await line.open(command(["sleep", "600"]), (80, 24))
                here.hang_up()
                assert gone(plain.pid) and gone(shell.pid)
                assert here.process.poll() is None

    run(work())


def test_a_guest_that_restarts_is_noticed(state):
    async def work():
        with resident_here(state) as here:
            async with asyncio.timeout(120), line_to(here) as line:
                session = await line.open(command(["sleep", "600"]))
                here.restart()
                with pytest.raises(LineError, match="restarted"):
                    await session.read()
                assert (await line.run(["echo", "again"])).text == "again"

    run(work())


def test_the_next_host_lets_go_of_what_runs_and_is_not_told_of_it(state):
    """As in a fork, which begins in the middle of whatever its parent was told."""

    async def work():
        with resident_here(state) as here:
            async with asyncio.timeout(120), line_to(here) as line:
                script = f"while ! [ -e {state}/go ]; do echo noise; sleep 0.02; done; echo done >{state}/went"
                session = await line.open(command(["sh", "-c", script]))
                await printed(session, b"noise")
                half = frame("T", bytes(9000), 1)
                line._wire._put(half[: len(half) // 2])
                next_one = Line.adopted(line._wire.copy())
                next_one._greeted = next_one._met = False
                await next_one.become(Identity(ahead=None))  # this host keeps its time
                line._wire.close()
                (state / "go").touch()
                assert (await next_one.run(["echo", "mine"])).text == "mine"
                while not (state / "went").exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                next_one.close()

    run(work())


def a_guest(told, late=0.0):
    """Answers greetings, and appends what time it is ``told``: the first time after so many seconds."""

    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, channel, size = HEADER.unpack(await reader.readexactly(HEADER.size))
                payload = await reader.readexactly(size)
                if chr(kind) == "I":
                    if not told:
                        await asyncio.sleep(late)
                    seconds, part = struct.unpack_from("<qq", payload, 4)
                    told.append(seconds + part / 1e9)
                    payload = bytes(2)
                writer.write(HEADER.pack(kind, channel, len(payload)) + payload)
        writer.close()

    return serve


@pytest.mark.parametrize(("late", "tellings"), [(0.0, 1), (0.7, 2)])
def test_a_guest_that_hears_the_time_late_is_told_again(state, late, tellings):
    async def work():
        told = []
        async with asyncio.timeout(120), scripted(state / "guest", a_guest(told, late)):
            line = Line(f"{state}/guest")
            began = time.time()
            within = await line.set_clock()
            assert len(told) == tellings and not line.owes
            assert told[-1] >= began + late and 0 < within < 0.5
            line.close()

    run(work())


def test_one_process_at_a_time(state):
    async def work():
        with resident_here(state) as here:
            async with line_to(here) as line:
                with pytest.raises(HeldError) as caught:
                    Line(here.path)
                assert str(os.getpid()) in caught.value.why
                assert (await line.run(["echo", "on"])).text == "on"
                line.close()
                with pytest.raises(LineError, match="was closed"):
                    await line.run(["true"])

    run(work())


def test_a_greeting_that_is_lost_is_said_again(state):
    """A resident that still looks at the line before this one, which has just ended, loses what comes first."""

    async def late(reader, writer):
        lost = 1
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(HEADER.size)
                kind, _, length = HEADER.unpack(head)
                body = await reader.readexactly(length)
                if chr(kind) == "R" and lost:
                    lost -= 1
                else:
                    writer.write(head + body)
        writer.close()

    async def work():
        async with scripted(state / "late", late):
            line = Line(f"{state}/late")
            await line.hello(timeout=60)
            line.close()

    run(work())


def test_a_guest_that_answers_a_greeting_late_is_met_by_that_answer(state):
    """It was greeted again meanwhile; what it answers to the first is as good."""

    async def slow(reader, writer):
        greetings = []
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(HEADER.size)
                kind, _, length = HEADER.unpack(head)
                body = await reader.readexactly(length)
                if chr(kind) == "R":
                    greetings.append(head + body)
                    if len(greetings) == 2:
                        writer.write(greetings[0])
                elif len(greetings) > 1:
                    writer.write(head + body)
        writer.close()

    async def work():
        async with scripted(state / "slow", slow):
            line = Line(f"{state}/slow")
            await line.hello(timeout=60)
            assert line.met
            line.close()

    run(work())


def test_a_resident_of_an_older_version_is_told_from_a_silent_one(state):
    async def older(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(HEADER.size)
                kind, _, length = HEADER.unpack(head)
                body = await reader.readexactly(length)
                if chr(kind) == "H":
                    writer.write(head + body)
        writer.close()

    async def silent(reader, writer):
        await reader.read()
        writer.close()

    async def work():
        async with scripted(state / "old", older):
            with pytest.raises(LineError) as caught:
                await Line(f"{state}/old").hello(timeout=60)
            assert "older version" in caught.value.why
        async with scripted(state / "silent", silent):
            line = Line(f"{state}/silent")
            with pytest.raises(LineError, match="does not answer"):
                await line.hello(timeout=0.2)
            line.close()

    run(work())


def test_nonsense_ends_the_line(state):
    async def nonsense(reader, writer):
        await reader.readexactly(1)
        writer.write(HEADER.pack(ord("O"), 1, 1 << 30))
        await writer.drain()

    async def work():
        async with scripted(state / "bad", nonsense):
            line = Line(f"{state}/bad")
            with pytest.raises(LineError) as caught:
                await line.hello(timeout=60)
            assert "no frame" in caught.value.why
            assert not line.free

    run(work())
