"""The MCP server, by the library's own client over stdio and HTTP: an agent's session with real machines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import httpx2
import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from typed import call, eventually, limits

from tinamou import Machine
from tinamou import machines as every_machine
from tinamou.errors import StateError
from tinamou.machine.facade import AsyncMachine
from tinamou.service.agents.mcp.outputs import Outputs, shown
from tinamou.service.agents.mcp.server import server_of
from tinamou.service.agents.mcp.session import Session
from tinamou.state.machines import free_port


def all_gone():
    """Wait until no machine is left: a client kills a server that takes longer than two seconds to end."""
    eventually(lambda: call("ls", "--json").stdout.strip() == "[]", "the end of all machines")


def names():
    return {one.name for one in every_machine()}


class Agent:
    """A client, and what its tools answered."""

    def __init__(self, client):
        self.client, self.told = client, []

    async def __call__(self, tool, **arguments):
        async def progress(done, total, message):
            self.told.append(message)

        answer = await self.client.call_tool(tool, arguments, progress_callback=progress)
        assert not answer.is_error, answer.content[0].text
        return answer.structured_content

    async def refused(self, tool, **arguments):
        answer = await self.client.call_tool(tool, arguments)
        assert answer.is_error
        return answer.content[0].text


def stdio(*words):
    return Client(StdioServerParameters(command=sys.executable, args=["-m", "tinamou", "mcp", *words], env=dict(os.environ)))


@pytest.mark.vm
def test_an_agents_session():
    """Make, write, run, fork, try two ways, compare, discard: nothing is left when the client hangs up."""

    async def session():
        async with stdio() as client:
            agent = Agent(client)
            base = (await agent("machine_create"))["name"]
            await agent("machine_write", machine=base, path="/root/app/main.sh", content="echo one\nexit 3\n")
            done = await agent("machine_run", machine=base, command="sh /root/app/main.sh")
            assert (done["status"], done["stdout"]) == (3, "one\n")
            await agent("machine_edit", machine=base, path="/root/app/main.sh", old="exit 3", new="exit 0")
            assert "must be there exactly once" in await agent.refused(
                "machine_edit", machine=base, path="/root/app/main.sh", old="exit 3", new="exit 0"
            )
            long = await agent("machine_run", machine=base, command="seq 10000; sh /root/app/main.sh", max_output=200)
            assert long["status"] == 0 and long["stdout"].endswith("one\n") and "bytes cut here" in long["stdout"]
            key = long["more"]["stdout"].split("'")[1]
            more = await agent("machine_output", output=key, offset=100, limit=100)
            assert more["next_offset"] == 200 and more["bytes_left"] > 0
            for limit in limits():
                killed = await agent("machine_run", machine=base, command="echo begun; sleep 600", timeout=limit)
                assert killed["status"] is None and "did not end" in killed["killed"]
                if killed["stdout"]:
                    break
            assert killed["stdout"] == "begun\n"
            one, two = [fork["name"] for fork in (await agent("machine_fork", machine=base, count=2))["forks"]]
            await agent("machine_run", machine=one, command="echo first >/root/app/result")
            await agent("machine_run", machine=two, command="echo second >/root/app/result; rm /root/app/main.sh")
            compared = await agent("machine_compare", first=one, second=two)
            assert {each["path"]: each["how"] for each in compared["differences"]} == {
                "/root/app/main.sh": "only in first",
                "/root/app/result": "content",
            }
            assert "-first\n+second\n" in compared["differences"][1]["diff"]
            await agent("machine_discard", machine=one)
            assert [each["name"] for each in (await agent("machine_list"))["machines"]] == [base, two]
            assert (await agent("machine_read", machine=two, path="/root/app/result"))["content"] == "second\n"
            assert "fix:" in await agent.refused("machine_run", machine=one, command="true")
            assert "making a machine" in agent.told
            assert names() == {base, two}

    asyncio.run(session())
    all_gone()


@pytest.mark.vm
def test_other_machines_are_not_touched_unless_allowed():
    async def session(name):
        async with stdio() as client:
            agent = Agent(client)
            assert (await agent("machine_list"))["machines"] == []
            for tool, more in {"machine_run": {"command": "id"}, "machine_discard": {}, "machine_fork": {}}.items():
                assert "this session has no machine named" in await agent.refused(tool, machine=name, **more)
        async with stdio("--all-machines") as client:
            agent = Agent(client)
            assert [one["yours"] for one in (await agent("machine_list"))["machines"]] == [False]
            assert (await agent("machine_run", machine=name, command="echo here"))["stdout"] == "here\n"

    with Machine() as machine:
        asyncio.run(session(machine.name))
        assert machine.run("true").status == 0


@pytest.mark.vm
@pytest.mark.slow
def test_a_kept_machine_stays_and_a_checkpoint_is_forked():
    async def session():
        async with stdio() as client:
            agent = Agent(client)
            made = (await agent("machine_create", keep=True))["name"]
            await agent("machine_run", machine=made, command="echo before >/root/a")
            saved = (await agent("machine_checkpoint", machine=made))["checkpoint"]
            await agent("machine_run", machine=made, command="echo after >/root/a")
            fork = (await agent("machine_create", checkpoint=saved))["name"]
            assert (await agent("machine_read", machine=fork, path="/root/a"))["content"] == "before\n"
            assert "leave image" in await agent.refused("machine_create", checkpoint=saved, network=True)
            return made

    made = asyncio.run(session())
    assert names() == {made}
    Machine.open(made).remove(force=True)


@contextlib.contextmanager
def over_http():
    """The real command on a port; its address and process."""
    port = free_port()
    words = ["mcp", "--listen", f"127.0.0.1:{port}"]
    environment = {**os.environ, "TINAMOU_MCP_TOKEN": "sesame"}
    process = subprocess.Popen([sys.executable, "-m", "tinamou", *words], env=environment)
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}/mcp", process
    finally:
        process.terminate()
        process.wait()


async def called(url, tool, mode="auto"):
    async with (
        httpx2.AsyncClient(headers={"Authorization": "Bearer sesame"}, timeout=120) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        return (await client.call_tool(tool, {})).structured_content


@pytest.mark.vm
@pytest.mark.slow
def test_a_kept_machine_goes_back_to_a_snapshot():
    async def session():
        async with stdio() as client:
            agent = Agent(client)
            fleeting = (await agent("machine_create"))["name"]
            assert "machine_keep" in await agent.refused("machine_snapshot", machine=fleeting, action="revert", name="x")
            made = (await agent("machine_create", settings={"disks": [{"size": "16M"}]}, keep=True))["name"]
            write, read = "echo {} >/dev/vda; sync", "head -n 1 /dev/vda"
            await agent("machine_run", machine=made, command=write.format("before"))
            await agent("machine_snapshot", machine=made, action="create", name="good")
            await agent("machine_run", machine=made, command=write.format("later!"))
            assert "it has good" in await agent.refused("machine_snapshot", machine=made, action="revert", name="x")
            await agent("machine_snapshot", machine=made, action="revert", name="good")
            assert (await agent("machine_run", machine=made, command=read))["stdout"] == "before\n"
            assert (await agent("machine_snapshot", machine=made))["snapshots"] == ["good"]
            await agent("machine_discard", machine=made)

    asyncio.run(session())
    all_gone()


def test_over_http_only_with_the_token():
    """The library's client in both eras of the protocol."""
    with over_http() as (url, _):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "sesame"}):
            answer = httpx2.post(url, json={}, headers=headers)
            assert answer.status_code == 401 and "fix" in answer.json()
        for mode in ("auto", "legacy"):
            assert asyncio.run(called(url, "machine_list", mode)) == {"machines": [], "all_machines": False}


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_machines_are_gone_with_a_server_that_is_killed(number):
    with over_http() as (url, process):
        made = asyncio.run(called(url, "machine_create"))
        assert names() == {made["name"]}
        process.send_signal(number)
        process.wait()
    all_gone()


def wait_for_port(port):
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "it never listened"
            time.sleep(0.05)


@pytest.mark.parametrize("address", ["0.0.0.0:8765", "192.0.2.1:8765", "8765", "localhost:x", "localhost:0"])
def test_it_listens_on_this_host_alone(address):
    done = subprocess.run(
        [sys.executable, "-m", "tinamou", "mcp", "--listen", address], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 110 and "--listen" in done.stderr


def test_tools_say_what_they_do_to_the_world():
    async def session():
        async with Client(server_of(Session())) as client:
            return {tool.name: tool for tool in (await client.list_tools()).tools}

    tools = asyncio.run(session())
    assert {name for name, tool in tools.items() if tool.annotations.read_only_hint} == {
        "machine_list", "machine_output", "machine_logs", "machine_compare", "machine_read"
    }  # fmt: skip
    assert tools["machine_discard"].annotations.destructive_hint
    assert not tools["machine_fork"].annotations.destructive_hint
    assert all(tool.description and len(tool.description) > 40 for tool in tools.values())
    assert len(tools) <= 14


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"share": ["/etc"]}, "share"),
        ({"disks": ["/etc/shadow"]}, "disk"),
        ({"disks": [{"image": "/etc/shadow"}]}, "disk"),
        ({"qemu_args": ["-S"]}, "qemu_args"),
        ({"image": "/etc/shadow"}, "image"),
        ({"kernel": "/etc/shadow"}, "boot.kernel"),
        ({"net": [{"forward": ["8080:80"]}]}, "net.forward"),
        ({"net": [{"type": "passt", "host": True}]}, "net.host"),
        ({"net": ["user"]}, "loopback"),
        ({"keep": True}, "keep"),
        ({"progress": 1}, "progress"),
    ],
)
def test_a_session_does_not_reach_the_host(settings, field):
    """Each is refused by name before anything is made."""

    async def ask():
        async with Session() as session, Client(server_of(session)) as client:
            return await Agent(client).refused("machine_create", settings=settings)

    assert field in asyncio.run(ask())


@pytest.mark.parametrize(
    ("host_access", "settings", "types"),
    [
        (False, {"net": ["auto"]}, ["passt"]),
        (False, {"net": [{"type": "user", "isolated": True}, "passt"]}, ["user", "passt"]),
        (False, {"net": [], "memory": {"size": "128M", "forkable": True}}, []),
        (True, {"net": ["auto"], "share": ["/etc"]}, ["auto"]),
        (True, {"net": ["user"]}, ["user"]),
    ],
)
def test_what_a_session_may_have_made(monkeypatch, host_access, settings, types):
    """Its network does not lead to the loopback of the host, unless it was given the host."""
    asked = []

    def of(spec, **_):
        asked.append(spec)
        raise StateError("far enough")

    monkeypatch.setattr(AsyncMachine, "of", of)

    async def ask():
        async with Session(host_access=host_access) as session:
            assert ("--host-access" in server_of(session).instructions) is host_access
            await session.create("tiny", settings)

    with pytest.raises(StateError, match="far enough"):
        asyncio.run(ask())
    assert [one.type for one in asked[0].net] == types


@pytest.mark.vm
@pytest.mark.slow
def test_its_network_does_not_lead_to_the_hosts_loopback():
    """The gateway of QEMU's own TCP/IP is the host's loopback; of passt, it is not."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        up = "until ip route | grep -q 'default via 10.0.2.2'; do sleep 1; done"
        ask = f"{up}; timeout 5 nc 10.0.2.2 {listening.getsockname()[1]} </dev/null; ip route"

        async def session(*words, **how):
            async with stdio(*words) as client:
                agent = Agent(client)
                made = (await agent("machine_create", **how))["name"]
                return (await agent("machine_run", machine=made, command=ask))["stdout"]

        assert "default via 10.0.2.2" in asyncio.run(session(network=True))
        with pytest.raises(BlockingIOError):
            listening.accept()
        asyncio.run(session("--host-access", settings={"net": ["user"]}))
        listening.accept()[0].close()


def test_a_session_has_so_many_machines():
    async def ask():
        async with Session(most=2) as session:
            await session.create("tiny", {}, checkpoint="none")

    with pytest.raises(StateError, match="no checkpoint"):
        asyncio.run(ask())

    async def too_many():
        async with Session(most=2) as session:
            await session.fork("none", 3)

    with pytest.raises(StateError, match="more than 2 machines"):
        asyncio.run(too_many())


def test_long_outputs_are_cut_and_kept():
    assert shown(b"short", 100) == ("short", 0)
    text, cut = shown(b"a" * 50 + b"b" * 100 + b"c" * 50, 100)
    assert cut == 100 and text.startswith("a" * 50) and text.endswith("c" * 50) and "b" not in text.replace("bytes", "")
    outputs = Outputs()
    first = outputs.keep(b"x")
    for _ in range(40):
        last = outputs.keep(b"y")
    assert outputs.find(last) == b"y"
    with pytest.raises(StateError, match="fix"):
        outputs.find(first)
