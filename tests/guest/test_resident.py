"""The program that runs commands in guests, as it is, on this host: what it runs, refuses, hears and survives."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal

import pytest
from resident_here import gone, printed, talk, the_end
from typed import limits

from tinamou.errors import GuestError, NoCommandError, SpecError, TimeLimitError
from tinamou.guest.agent import Completed
from tinamou.guest.command import CAPTURED, command


def test_commands_run(state):
    async def work(line):
        assert await line.run(["sh", "-c", "echo out; echo err >&2; exit 7"]) == Completed(7, b"out\n", b"err\n")
        assert (await line.run(["sh", "-c", "kill -9 $$"])).status == -9
        every_byte = bytes(range(256)) * 3000
        assert (await line.run(["cat"], input=every_byte)).stdout == every_byte
        assert (await line.run(["cat"], input=b"")).stdout == (await line.run(["cat"])).stdout == b""
        assert (await line.run(["printf", "%s", "ä \udcff \n"])).stdout == "ä ".encode() + b"\xff \n"
        assert (await line.run(["sh", "-c", "sleep 100 & echo left"])).text == "left"
        (state / "script").write_text("echo no interpreter is named, $1\n")
        (state / "script").chmod(0o755)
        assert (await line.run([f"{state}/script", "but"])).text == "no interpreter is named, but"

    talk(state, work)


def test_a_command_has_the_environment_of_a_login(state):
    async def work(line):
        found = dict(one.split("=", 1) for one in (await line.run(["env"])).text.split("\n"))
        assert found.pop("SHELL").startswith("/")
        assert found == {
            "HOME": "/root",
            "USER": "root",
            "LOGNAME": "root",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        added = (await line.run(["env"], env={"A": "b c", "HOME": "/x"})).text.split("\n")
        assert {"A=b c", "HOME=/x", "USER=root"} <= set(added) and "HOME=/root" not in added
        assert (await line.run(["pwd"], cwd="/usr")).text == "/usr"
        assert (await line.run(["tool"], env={"PATH": "/nowhere:" + str(state)}, cwd="/")).text == "found"

    (state / "tool").write_text("#!/bin/sh\necho found\n")
    (state / "tool").chmod(0o755)
    talk(state, work)


@pytest.mark.root
def test_a_command_has_the_rights_of_its_user(state):
    async def work(line):
        show = "id -u; id -g; id -G; echo $HOME $USER $LOGNAME; pwd; grep CapEff /proc/self/status"
        said = (await line.run(["sh", "-c", show], user="nobody")).text.split("\n")
        number = said[0]
        assert number != "0" and said[3].split()[1:] == ["nobody", "nobody"]
        assert int(said[5].split()[1], 16) == 0
        assert (await line.run(["id", "-un"], user=number)).text == "nobody"
        assert (await line.run(["pwd"])).text == "/root"
        daemon = (await line.run(["id", "-G"], user="root")).text
        assert daemon.split()[0] == "0"
        with pytest.raises(GuestError, match="cannot begin in the folder /root/x"):
            await line.run(["true"], user="nobody", cwd="/root/x")

    talk(state, work)


def test_what_cannot_run_is_named(state):
    async def work(line):
        with pytest.raises(GuestError, match="no user nosuch in the guest"):
            await line.run(["true"], user="nosuch")
        with pytest.raises(GuestError, match="no user 77777 in the guest"):
            await line.run(["true"], user="77777")
        for cwd, why in (("/no/such", "No such file"), ("/etc/passwd", "Not a directory")):
            with pytest.raises(GuestError, match=f"cannot begin in the folder {cwd}") as caught:
                await line.run(["true"], cwd=cwd)
            assert why in caught.value.why
        for name, why in (("no-such-program", "No such file"), ("/no/such", "No such file"), ("/etc/passwd", "denied")):
            with pytest.raises(NoCommandError, match=f"could not start {name}") as missing:
                await line.run([name])
            assert why in missing.value.why and missing.value.code == 127
        with pytest.raises(GuestError, match="no command"):
            await line.run([])
        with pytest.raises(GuestError, match="takes 4000"):
            await line.run(["echo", *("x" for _ in range(5000))])
        with pytest.raises(SpecError) as bad:
            await line.run(["a\0b"], cwd="relative", user="1:1", env={"": "x", "A=B": "y"})
        assert [problem.path for problem in bad.value.problems] == ["command", "env", "env", "cwd", "user"]
        assert (await line.run(["echo", "on"])).text == "on"

    talk(state, work)


def test_large_input_and_output(state):
    data = os.urandom(20_000_000)

    async def work(line):
        done = await line.run(["sha256sum"], input=data)
        assert done.text.split()[0] == hashlib.sha256(data).hexdigest()
        heard = hashlib.sha256()
        done = await line.stream(["cat"], heard.update, print, input=data)
        assert (done.status, heard.digest()) == (0, hashlib.sha256(data).digest())
        done = await line.run(["head", "-c", str(CAPTURED), "/dev/zero"])
        assert (len(done.stdout), done.truncated) == (CAPTURED, False)
        done = await line.run(["head", "-c", str(CAPTURED + 1), "/dev/zero"])
        assert (len(done.stdout), done.truncated) == (CAPTURED, True)
        assert (await line.run(["head", "-c", "3"], input=data)).stdout == data[:3]

    talk(state, work)


def test_input_comes_while_the_command_runs(state):
    async def work(line):
        heard = asyncio.Queue()

        async def typed():
            for word in (b"one\n", b"two\n"):
                yield word
                assert await heard.get() == word

        assert (await line.stream(["cat"], heard.put_nowait, print, input=typed())).status == 0

        async def broken():
            yield b"x"
            while not ((state / "pid").exists() and (state / "pid").read_text()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            raise OSError("on purpose")

        with pytest.raises(OSError, match="on purpose"):
            await line.run(["sh", "-c", f"echo $$ >{state}/pid; cat; sleep 100"], input=broken())
        assert gone(int((state / "pid").read_text()))

    talk(state, work)


def test_many_at_a_time_and_none_waits_for_another(state):
    async def work(line):
        unread = await line.open(command(["yes"]))
        listening = await line.open(command(["cat"]))
        await asyncio.sleep(0.2)
        assert (await line.run(["wc", "-c"], input=bytes(1_000_000))).text == "1000000"
        slow = [line.run(["sh", "-c", f"sleep 0.3; echo {n}"]) for n in range(20)]
        assert [done.text for done in await asyncio.gather(*slow)] == [str(n) for n in range(20)]
        await listening.write(b"still here")
        assert await printed(listening, b"here") == b"still here"
        listening.end_input()
        assert await the_end(listening) == 0
        unread.leave()
        assert gone(unread.pid)
        crowd = [await line.open(command(["cat"])) for _ in range(32)]
        with pytest.raises(GuestError, match="cannot start true"):
            await line.run(["true"])
        crowd[7].leave()
        assert (await line.run(["true"])).status == 0

    talk(state, work)


def test_what_takes_too_long_is_killed_with_all_it_started(state):
    async def work(line):
        script = f"sleep 600 & echo $! >{state}/child; echo $$ >{state}/pid; wait"
        for limit in limits():
            with pytest.raises(TimeLimitError, match=f"did not end within {limit:g} s"):
                await line.run(["sh", "-c", script], timeout=limit)
            if (state / "pid").exists() and (state / "pid").read_text():
                break
        assert all(gone(int((state / name).read_text())) for name in ("child", "pid"))
        task = asyncio.create_task(line.run(["sh", "-c", f"echo $$ >{state}/other; exec sleep 600"]))
        while not (state / "other").exists() or not (state / "other").read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gone(int((state / "other").read_text()))
        assert (await line.run(["echo", "on"])).text == "on"

    talk(state, work)


def test_a_signal_reaches_all_that_was_started(state):
    async def work(line):
        script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
        session = await line.open(command(["sh", "-c", script]))
        await printed(session, b"ready")
        session.signal(signal.SIGTERM)
        await printed(session, b"caught")
        assert await the_end(session) == 3

    talk(state, work)
