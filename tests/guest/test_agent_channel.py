"""The agent client against a real guest agent, and against one that is late, torn, noisy or dead."""

from __future__ import annotations

import asyncio
import base64
import json
from itertools import groupby
from pathlib import Path

import pytest
from running import local_agent, run, scripted
from typed import eventually, limits, number_in

from tinamou.errors import GuestError
from tinamou.guest.agent import Agent, Completed
from tinamou.guest.channel import AgentRefusedError, AgentSilentError, Channel
from tinamou.guest.command import CAPTURED
from tinamou.guest.execute import poll


def test_commands_run(state):
    async def talk(agent):
        async with agent:
            await agent.ping()
            assert "guest-exec" in await agent.commands()
            assert await agent.run(["sh", "-c", "echo out; echo err >&2; exit 7"]) == Completed(7, b"out\n", b"err\n")
            killed = await agent.run(["sh", "-c", "kill -9 $$"])
            assert (killed.status, killed.exit_status) == (-9, 137)
            every_byte = bytes(range(256)) * 300
            assert (await agent.run(["cat"], input=every_byte)).stdout == every_byte
            assert (await agent.run(["cat"], input=b"")).stdout == b""
            assert (await agent.run(["printf", "%s", "ä \xff \n"])).stdout.decode() == "ä \xff \n"

    with local_agent(state) as agent:
        run(talk(agent))


def test_commands_that_cannot_run(state):
    async def talk(agent):
        async with agent:
            with pytest.raises(GuestError, match="could not start /no/such"):
                await agent.run(["/no/such"])
            with pytest.raises(GuestError, match="no command"):
                await agent.run([])
            with pytest.raises(AgentRefusedError) as caught:
                await agent.command("guest-nonsense")
            assert caught.value.error_class == "CommandNotFound"
            with pytest.raises(GuestError, match="no longer knows"):
                await poll(agent, 999999)

    with local_agent(state) as agent:
        run(talk(agent))


def test_exec_forbidden(state):
    async def talk(agent):
        async with agent:
            with pytest.raises(GuestError, match="may not run commands"):
                await agent.run(["true"])

    with local_agent(state, "-b", "guest-exec") as agent:
        run(talk(agent))


def test_a_command_that_runs_too_long_is_killed(state):
    async def talk(agent):
        async with agent:
            for limit in limits():
                with pytest.raises(GuestError, match="did not end within") as caught:
                    await agent.run(["sh", "-c", f"echo $$ >{state}/pid; exec sleep 600"], timeout=limit)
                if (state / "pid").exists() and (state / "pid").read_text():
                    break
            assert "killed" in caught.value.why
            task = asyncio.create_task(agent.run(["sh", "-c", f"echo $$ >{state}/pid2; exec sleep 600"]))
            while not (state / "pid2").exists() or not (state / "pid2").read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for name in ("pid", "pid2"):
                process = Path(f"/proc/{number_in(state / name)}")
                eventually(lambda process=process: not process.exists(), "the end of the command")
            await agent.ping()

    with local_agent(state) as agent:
        run(talk(agent))


def test_two_users_take_turns(state):
    async def work(path, name):
        async with Agent(path) as agent:
            return [(await agent.run(["echo", f"{name}{n}"])).text for n in range(15)]

    async def talk(agent):
        path = f"{state}/agent.sock"
        found = await asyncio.gather(*(work(path, name) for name in "abc"))
        assert found == [[f"{name}{n}" for n in range(15)] for name in "abc"]

    with local_agent(state) as agent:
        run(talk(agent))


def test_a_turn_that_does_not_come(state):
    async def talk(agent):
        async with agent:
            await agent.ping()
            agent.channel._stay()
            other = Channel(f"{state}/agent.sock")
            with pytest.raises(AgentSilentError):
                await other.request("guest-ping", timeout=0.2)

    with local_agent(state) as agent:
        run(talk(agent))


class Unreliable:
    """An agent whose answers a test can delay, tear and garble."""

    def __init__(self, delays=(), noise=b"", hang_up_on=""):
        self.delays = dict(delays)
        self.noise = noise
        self.hang_up_on = hang_up_on
        self.asked = []

    async def __call__(self, reader, writer):
        while line := await reader.readline():
            request = json.loads(line.lstrip(b"\xff"))
            name = request["execute"]
            self.asked.append(name)
            if name == self.hang_up_on:
                writer.close()
                return
            await asyncio.sleep(self.delays.pop(name, 0))
            if name == "guest-sync-delimited":
                writer.write(self.noise + b"\xff" + json.dumps({"return": request["arguments"]["id"]}).encode() + b"\n")
            else:
                writer.write(json.dumps({"return": {"to": name}}).encode() + b"\n")
        writer.close()


def test_a_late_answer_is_never_taken_for_the_next_one(state):
    async def talk():
        server = Unreliable(delays={"slow": 0.3})
        async with scripted(state / "a", server):
            channel = Channel(f"{state}/a")
            await channel.sync(timeout=60)
            with pytest.raises(AgentSilentError, match="did not answer slow"):
                await channel.request("slow", timeout=0.1)
            assert await channel.request("next", timeout=60) == {"to": "next"}
            assert await channel.request("last", timeout=60) == {"to": "last"}
            await channel.close()
        asked = [name for name, _ in groupby(server.asked)]  # who is late is asked again
        assert asked == ["guest-sync-delimited", "slow", "guest-sync-delimited", "next", "last"]

    run(talk())


def test_a_cancelled_request_leaves_nothing_behind(state):
    async def talk():
        async with scripted(state / "a", Unreliable(delays={"slow": 0.2})):
            channel = Channel(f"{state}/a")
            task = asyncio.create_task(channel.request("slow"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await channel.request("next", timeout=60) == {"to": "next"}
            await channel.close()

    run(talk())


@pytest.mark.parametrize(
    "noise",
    [b"console garbage\n", b'{"return": 5}\n', b'{"torn": ', b"\xff\xff", b'{"error": {"class": "G", "desc": "parse"}}\n'],
)
def test_noise_before_the_answer_is_dropped(state, noise):
    async def talk():
        async with scripted(state / "a", Unreliable(noise=noise)):
            channel = Channel(f"{state}/a")
            assert await channel.request("next", timeout=60) == {"to": "next"}
            await channel.close()

    run(talk())


def test_an_agent_that_starts_late_gets_the_question_again(state):
    async def talk():
        server = Unreliable(delays={"guest-sync-delimited": 1.3})
        async with scripted(state / "a", server):
            channel = Channel(f"{state}/a")
            await channel.sync(timeout=60)
            assert await channel.request("next", timeout=60) == {"to": "next"}
            await channel.close()
        assert server.asked[:2] == ["guest-sync-delimited"] * 2 and server.asked[-1] == "next"

    run(talk())


def test_a_line_that_ends(state):
    async def talk():
        async with scripted(state / "a", Unreliable(hang_up_on="die")):
            channel = Channel(f"{state}/a")
            with pytest.raises(AgentSilentError, match="ended"):
                await channel.request("die", timeout=60)
            assert await channel.request("next", timeout=60) == {"to": "next"}
            await channel.notify("die", timeout=60)
            await channel.close()

    run(talk())


def test_no_socket(state):
    with pytest.raises(AgentSilentError):
        run(Channel(f"{state}/none").request("guest-ping", timeout=0.1))
    with pytest.raises(GuestError, match="cannot be locked"):
        run(Channel(f"{state}/no/folder/agent.sock").request("guest-ping", timeout=0.1))


def test_one_agent_in_several_event_loops(state):
    """As a program does that calls asyncio.run for every step."""
    with local_agent(state) as agent:
        for word in ("one", "two"):
            assert run(agent.run(["echo", word])).text == word
        other = Agent(f"{state}/agent.sock")
        run(agent.close())
        assert run(other.run(["echo", "three"])).text == "three"


class Freezing:
    """An agent that can freeze; ``late`` and ``refuse`` say how it answers."""

    def __init__(self, late=0.0, refuse=False):
        self.late, self.refuse, self.asked = late, refuse, []

    async def __call__(self, reader, writer):
        while line := await reader.readline():
            request = json.loads(line.lstrip(b"\xff"))
            name = request["execute"]
            if name == "guest-sync-delimited":
                writer.write(b"\xff" + json.dumps({"return": request["arguments"]["id"]}).encode() + b"\n")
                continue
            self.asked.append(name.removeprefix("guest-fsfreeze-"))
            if name.endswith("freeze"):
                await asyncio.sleep(self.late)
            answer = {"error": {"class": "GenericError", "desc": "no"}} if self.refuse else {"return": 1}
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()


@pytest.mark.parametrize(
    ("server", "fails", "asked"),
    [
        (Freezing(), None, ["freeze", "inside", "thaw"]),
        (Freezing(), ValueError, ["freeze", "inside", "thaw"]),
        (Freezing(late=0.6), AgentSilentError, ["freeze", "thaw"]),
        (Freezing(refuse=True), AgentRefusedError, ["freeze"]),
    ],
    ids=["works", "fails inside", "late", "refused"],
)
def test_what_was_frozen_is_thawed(state, server, fails, asked):
    async def talk():
        async with scripted(state / "a", server), Agent(f"{state}/a", timeout=0.4 if server.late else 30) as agent:
            await agent.channel.sync(timeout=60)
            agent.thaw = lambda: agent.command("guest-fsfreeze-thaw", timeout=60)
            async with agent.frozen() as count:
                assert count == 1
                server.asked.append("inside")
                if fails:
                    raise fails

    if fails:
        with pytest.raises(fails):
            run(talk())
    else:
        run(talk())
    assert server.asked == asked


FULL = b"x" * CAPTURED


@pytest.mark.parametrize(
    ("kept", "told", "truncated"),
    [
        (b"half", {"out-truncated": True}, True),
        (b"all", {"out-truncated": False}, False),
        (FULL, {"out-truncated": False}, True),
        (FULL, {}, False),
    ],
    ids=["told", "all", "QEMU 10.0 with more", "QEMU 10.0 without"],
)
def test_truncation_is_told(state, kept, told, truncated):
    async def serve(reader, writer):
        while line := await reader.readline():
            request = json.loads(line.lstrip(b"\xff"))
            answers = {
                "guest-sync-delimited": request.get("arguments", {}).get("id"),
                "guest-exec": {"pid": 5},
                "guest-exec-status": {
                    "exited": True,
                    "exitcode": 0,
                    "out-data": base64.b64encode(kept).decode(),
                    **told,
                },
            }
            writer.write(json.dumps({"return": answers[request["execute"]]}).encode() + b"\n")
        writer.close()

    async def talk():
        async with scripted(state / "a", serve):
            async with Agent(f"{state}/a") as agent:
                done = await agent.run(["yes"])
            assert (done.truncated, done.stdout) == (truncated, kept)

    run(talk())
