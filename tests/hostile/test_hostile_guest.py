"""A silent, babbling or lying agent or resident: whoever asks it is told so in time, in one line."""

from __future__ import annotations

import asyncio

import pytest
import stand_in
from lying import command, commands, complaint, machine, said

from tinamou.errors import GuestError
from tinamou.guest import files
from tinamou.guest.agent import Agent
from tinamou.guest.resident import Line
from tinamou.network.nics import guest_sides

AGENTS = [way for way in stand_in.AGENT if way != "honest"]
RESIDENTS = [way for way in stand_in.RESIDENT if way != "honest"]


async def ask(path: str, seconds: float = 2.0) -> None:
    async with Agent(path, timeout=seconds) as agent:
        done = await agent.run(["true"], timeout=seconds)
        assert (done.status, done.stdout) == (0, b"hello\n")


@pytest.mark.parametrize("way", AGENTS)
def test_a_lying_agent(state, way):
    with machine("one", agent=way) as record, pytest.raises(GuestError) as told:
        asyncio.run(ask(str(record.file("agent.sock"))))
    assert len(str(told.value)) < 2000


def test_an_honest_agent(state):
    with machine("one") as record:
        asyncio.run(ask(str(record.file("agent.sock")), 60.0))


@pytest.mark.parametrize("way", ["deep", "bad-base64", "odd-types", "odd-error", "no-return"])
def test_a_file_from_a_lying_agent(state, way):
    async def fetch(path: str) -> None:
        async with Agent(path, timeout=2.0) as agent:
            await files.read(agent, "/etc/passwd")

    with machine("one", agent=way) as record, pytest.raises(GuestError):
        asyncio.run(fetch(str(record.file("agent.sock"))))


async def talk(path: str, seconds: float = 2.0) -> None:
    line = Line(path)
    try:
        await line.hello(timeout=seconds)
        done = await line.run(["true"], timeout=seconds)
        assert (done.status, done.stdout) == (0, b"hello\n")
    finally:
        line.close()


@pytest.mark.parametrize("way", RESIDENTS)
def test_a_lying_resident(state, way):
    with machine("one", resident=way) as record, pytest.raises(GuestError) as told:
        asyncio.run(talk(str(record.file("resident.sock"))))
    assert len(str(told.value)) < 2000


def test_an_honest_resident(state):
    with machine("one") as record:
        asyncio.run(talk(str(record.file("resident.sock")), 60.0))


@pytest.mark.slow
def test_commands_in_a_lying_guest(state):
    import contextlib

    with contextlib.ExitStack() as stack:
        for way in AGENTS:
            stack.enter_context(machine(way, agent=way))
        for one in commands([["exec", "--timeout", "5", way] for way in AGENTS], seconds=90).values():
            assert one.returncode == 2  # nothing to run was named
        for way in AGENTS:
            done = command("exec", way, "--timeout", "5", "--", "true", seconds=90)
            assert done.returncode in (116, 124)
            assert complaint(done)
        told = said(command("watch", "--once", seconds=90))
        assert all(f" {way}: bad: " in told for way in ("silent", "garbage"))
        assert said(command("stats", seconds=60)).count("\n") > len(AGENTS)


@pytest.mark.parametrize(
    "text",
    ["= eth0", "= eth0 virtio 52:54:00:00:00:01 many 0x1 1 1 1", "a 10.0.0.1/8", "=" * 70000, f"c rx_bytes {'9' * 5000}"],
)
def test_what_is_no_list_of_interfaces(text):
    with pytest.raises(GuestError, match="no list of its interfaces"):
        guest_sides(text)
