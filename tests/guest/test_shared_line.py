"""One line to a guest's resident for several processes: they do not wait for each other, nor end with each other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from resident_here import line_to, resident_here
from running import run, scripted
from typed import number_in

from tinamou.errors import GuestError
from tinamou.guest.command import command
from tinamou.guest.resident import HeldError, Identity, Line, LineError, Sharing, connect, shared
from tinamou.guest.resident.frames import HEADER
from tinamou.guest.resident.sharing import shared_path
from tinamou.system.sockets import connect_unix
from tinamou.system.turns import Turn

RUN = """
import asyncio, sys
from tinamou.guest.resident import shared

async def work():
    line = shared(sys.argv[1])
    done = await line.run(["sh", "-c", sys.argv[2]], input=b"in")
    sys.stdout.buffer.write(done.stdout)
    line.close()

asyncio.run(work())
"""


def begin(path, script):
    """Another program that runs a command by the shared line."""
    words = [sys.executable, "-c", RUN, path, script]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


def until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.02)


def holder(path):
    return Turn(f"{path}.lock").holder()


def test_programs_do_not_wait_for_each_other(state):
    with resident_here(state) as here:
        long = begin(here.path, f"echo $$ >{state}/pid; while ! [ -e {state}/go ]; do sleep 0.05; done; echo long")
        number_in(state / "pid")
        short = begin(here.path, "cat; echo short")
        assert short.communicate(timeout=120)[0] == b"inshort\n"
        (state / "go").touch()
        assert long.communicate(timeout=120)[0] == b"long\n"
        until(lambda: holder(here.path) == 0, "the end of who held the line")
        assert not Path(shared_path(here.path)).exists()


def test_a_program_that_is_killed_takes_its_own_command_along(state):
    with resident_here(state) as here:
        doomed = begin(here.path, f"echo $$ >{state}/doomed; exec sleep 600")
        other = begin(here.path, f"echo $$ >{state}/other; while ! [ -e {state}/go ]; do sleep 0.05; done; echo on")
        pid = number_in(state / "doomed")
        number_in(state / "other")
        doomed.kill()
        doomed.communicate()
        until(lambda: not Path(f"/proc/{pid}").exists(), "the end of its command")
        (state / "go").touch()
        assert other.communicate(timeout=120)[0] == b"on\n"


@pytest.mark.parametrize("by", ["the line itself", "who holds it"])
def test_a_greeting_lost_in_a_restart_is_answered_by_the_next_guest(state, by):
    async def work():
        with resident_here(state) as here:
            async with asyncio.timeout(120), line_to(here) as line:
                sharing = Sharing(line, here.path)
                asks = line if by == "the line itself" else Line.to(shared_path(here.path))
                await asks.hello()
                here.end()
                asked = asyncio.create_task(asks.hello(timeout=60))
                await asyncio.sleep(0.3)
                termios.tcflush(here._theirs, termios.TCIOFLUSH)
                here.start()
                await asked
                assert (await asks.run(["echo", "anew"])).text == "anew"
                asks.close()
                await sharing.idle()

    run(work())


def test_two_greetings_that_waited_are_both_answered(state):
    """As when a guest is given its resident while several ask for it: what one greeted anew does not end the other's."""

    async def work():
        with resident_here(state) as here:
            here.end()
            line = Line(here.path)
            first = asyncio.create_task(line.hello(timeout=60))
            await asyncio.sleep(0.2)
            second = asyncio.create_task(line.hello(timeout=60))
            await asyncio.sleep(0.1)
            line._greet(anew=True)
            here.start()
            await asyncio.gather(first, second)
            assert (await line.run(["echo", "both"])).text == "both"
            line.close()

    run(work())


def test_a_program_with_threads_shares_too(state):
    async def work():
        with resident_here(state) as here:
            line = shared(here.path)
            other = shared(here.path)
            shell = await line.open(command(["sh"], env={"PS1": "> "}), (80, 24))
            assert (await other.run(["cat"], input=bytes(300_000))).stdout == bytes(300_000)
            other.close()
            await shell.write(b"exit 3\n")
            while await shell.read():
                pass
            assert shell.status == 3
            await line.hello()
            line.close()
            await asyncio.to_thread(until, lambda: holder(here.path) == 0, "the end of who held the line")

    run(work())


def test_who_shares_a_line_may_have_the_clock_set_and_nothing_else_of_the_guest(state, monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 10**18)

    async def work():
        heard = []

        async def guest(reader, writer):
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    kind, channel, size = HEADER.unpack(await reader.readexactly(HEADER.size))
                    payload = await reader.readexactly(size)
                    if chr(kind) == "I":
                        heard.append(payload)
                        payload = bytes(2 if payload[:1] == b"t" else 1)
                    writer.write(HEADER.pack(kind, channel, len(payload)) + payload)
            writer.close()

        path = f"{state}/resident.sock"
        async with asyncio.timeout(120), scripted(Path(path), guest):
            line = Line(path)
            await line.hello()
            sharing = Sharing(line, path)
            other = Line.to(shared_path(path))
            for way in (other, line):
                for ahead in (0, -86400):
                    assert await way.set_clock(ahead=ahead) < 20
                    assert struct.unpack_from("<qq", heard[-1], 4) == (10**9 + ahead, 0)
            await line.become(Identity(ahead=None))
            assert heard[-1][:1] == b"e"
            with pytest.raises(GuestError, match="answered 2 of 3 requests"):
                await other.become(Identity(hostname="theirs"))
            assert len(heard) >= 2 and not any(b"theirs" in one for one in heard)
            await sharing.idle()
            line.close()

    run(work())


def test_who_has_the_line_can_share_it(state):
    async def work():
        with resident_here(state) as here:
            line = Line(here.path)
            with pytest.raises(HeldError) as caught:
                connect(here.path)
            assert caught.value.holder > 0
            Sharing(line, here.path)
            other = connect(here.path)
            await other.hello()
            session = await other.open(command(["cat"]))
            assert (await line.run(["echo", "mine"])).text == "mine"
            await session.write(b"yours")
            assert await session.read() == ("out", b"yours")
            line.close()
            with pytest.raises(LineError):
                await session.read()
            assert not Path(shared_path(here.path)).exists()  # noqa: ASYNC240

    run(work())


def test_who_does_not_share_is_named(state):
    with resident_here(state) as here:
        turn = Turn(f"{here.path}.lock")
        assert turn.take()
        with pytest.raises(HeldError) as caught:
            shared(here.path)
        assert f"process {holder(here.path)} holds it" in caught.value.why
        turn.give()


def test_the_end_of_the_machine_ends_it(state):
    async def work():
        with resident_here(state) as here:
            line = shared(here.path)
            session = await line.open(command(["sleep", "600"]))
            here.hang_up()
            here.end_line()
            with pytest.raises(LineError):
                await session.read()
            await asyncio.to_thread(until, lambda: holder(here.path) == 0, "the end of who held the line")

    run(work())


def test_a_full_queue_and_a_qemu_that_is_gone_are_told_in_words(state):
    path = str(state / "resident.sock")
    with contextlib.ExitStack() as stack:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(0)
            waiting = stack.enter_context(connect_unix(path))
            assert waiting.getpeername() == path
            with pytest.raises(LineError, match="cannot be opened") as stuck:
                connect(path)
            assert "QEMU is stuck" in stuck.value.why
        with pytest.raises(LineError) as gone:
            connect(path)
        assert gone.value.why == "QEMU has ended"
    assert holder(path) == 0
