"""Commands whose output is heard while they run."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess

import pytest
from running import local_agent, outputs, run, scripted, tiny
from typed import limits

from tinamou.errors import GuestError, NoCommandError, TimeLimitError
from tinamou.guest import execute
from tinamou.guest.agent import Agent
from tinamou.guest.stream import NoShellError


def test_output_is_heard_as_it_comes(state):
    heard = []

    async def talk(agent):
        async with agent:
            (state / "go").unlink(missing_ok=True)
            script = f"echo one; echo two >&2; while ! [ -e {state}/go ]; do sleep 0.05; done; echo three; exit 5"

            def out(piece):
                heard.append(piece)
                (state / "go").touch()

            errors = []
            done = await agent.stream(["sh", "-c", script], out, errors.append)
            assert (done.status, done.stdout, done.stderr) == (5, b"", b"")
            assert b"".join(heard) == b"one\nthree\n"
            assert heard[0] == b"one\n"
            assert b"".join(errors) == b"two\n"
            assert outputs(state) == []

    with local_agent(state) as agent:
        run(talk(agent))


def test_more_than_the_agent_would_keep(state):
    size = (16 << 20) + 12345

    async def talk(agent):
        async with agent:
            command = ["sh", "-c", f"head -c {size} /dev/zero"]
            kept = await agent.run(command)
            assert kept.truncated and len(kept.stdout) < size
            got = []
            done = await agent.stream(command, got.append, got.append)
            assert (done.status, sum(map(len, got))) == (0, size)

    with local_agent(state) as agent:
        run(talk(agent))


def test_ends_of_all_kinds(state):
    async def talk(agent):
        async with agent:
            with pytest.raises(NoCommandError, match="could not start /no/such"):
                await agent.stream(["/no/such"], print, print)
            assert (await agent.stream(["sh", "-c", "kill -9 $$"], print, print)).status == -9
            got = []
            assert (await agent.stream(["cat"], got.append, print, input=b"in")).status == 0
            assert got == [b"in"]
            with pytest.raises(GuestError, match="did not end"):
                await agent.stream(["sleep", "600"], print, print, timeout=0.3)
            with pytest.raises(GuestError, match="no command"):
                await agent.stream([], print, print)
            task = asyncio.create_task(agent.stream(["sleep", "600"], print, print))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert outputs(state) == []

    with local_agent(state) as agent:
        run(talk(agent))


def test_an_agent_that_falls_silent_is_not_asked_for_long_to_tidy_up(state, monkeypatch):
    monkeypatch.setattr(execute, "AFTERWARDS_SECONDS", 0.3)

    async def talk(agent, pid):
        heard = asyncio.Event()
        async with agent, asyncio.timeout(120):
            for limit in limits():
                command = agent.stream(["sh", "-c", "echo; exec sleep 600"], lambda _: heard.set(), print, timeout=limit)
                running = asyncio.create_task(command)
                waited = asyncio.create_task(heard.wait())
                await asyncio.wait([running, waited], return_when=asyncio.FIRST_COMPLETED)
                if heard.is_set():
                    break
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(TimeLimitError, match="The command sh -c echo; exec sleep 600 did not end") as caught:
                await running
            assert "still runs in the guest" in caught.value.why

    with local_agent(state) as agent:
        found = subprocess.run(["pgrep", "-f", f"{state}/agent.sock"], capture_output=True, text=True, check=True)
        pid = int(found.stdout)
        try:
            run(talk(agent, pid))
        finally:
            subprocess.run(["pkill", "-P", str(pid)], check=False)
            os.kill(pid, signal.SIGCONT)
            for folder in outputs(state):
                shutil.rmtree(folder)


def test_a_large_input(state):
    data = os.urandom(3 << 20)

    async def talk(agent):
        async with agent:
            got = []
            assert (await agent.stream(["sha256sum"], got.append, print, input=data)).status == 0
            assert b"".join(got).split()[0].decode() == hashlib.sha256(data).hexdigest()
            assert outputs(state) == []

    with local_agent(state) as agent:
        run(talk(agent))


def test_a_guest_without_a_shell(state):
    async def serve(reader, writer):
        while line := await reader.readline():
            request = json.loads(line.lstrip(b"\xff"))
            if request["execute"] == "guest-sync-delimited":
                answer = {"return": request["arguments"]["id"]}
            elif request["execute"] == "guest-exec-status":
                answer = {"return": {"exited": True, "exitcode": 3, "out-data": "b3V0"}}
            elif request["execute"] == "guest-get-osinfo":
                answer = {"error": {"class": "CommandNotFound", "desc": "unknown"}}
            elif request["arguments"]["path"] == "cmd.exe":
                answer = {"return": {"pid": 1}}
            else:
                answer = {"error": {"class": "GenericError", "desc": "No such file or directory"}}
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    async def typed():
        yield b"x"

    async def talk():
        async with scripted(state / "a", serve), Agent(f"{state}/a") as agent:
            got = []
            assert (await agent.stream(["cmd.exe"], got.append, got.append)).status == 3
            assert b"".join(got) == b"out"
            assert (await agent.run(["cmd.exe"])).stdout == b"out"
            for how in ({"cwd": "/x"}, {"user": "x"}, {"env": {"A": "b"}}, {"input": typed()}):
                with pytest.raises(NoShellError):
                    await agent.run(["cmd.exe"], **how)

    run(talk())


@pytest.mark.vm
def test_in_a_real_guest(state):
    async def talk(machine):
        async with machine.agent() as agent:
            await agent.wait(100)
            got = []
            done = await agent.stream(["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done; exit 3"], got.append, print)
            assert (done.status, b"".join(got)) == (3, b"1\n2\n3\n")
            assert (await agent.run(["ls", "/tmp"])).text == ""

    with tiny(state) as machine:
        run(talk(machine))
