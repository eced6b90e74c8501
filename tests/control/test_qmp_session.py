"""QMP sessions against a real QEMU, and against a server that breaks the rules."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time

import pytest
from running import bare, qemu, run, scripted

from tinamou.control import DisconnectedError, RefusedError, commands, connect, connect_qmp
from tinamou.errors import ControlError


def answer(writer, line):
    """Answer a command as QEMU does: with its id."""
    writer.write(json.dumps({"return": {}, "id": json.loads(line)["id"]}).encode() + b"\n")


def test_commands_and_refusals(state):
    async def talk(machine):
        async with await connect_qmp(machine.directory, owner=True, alive=machine.alive) as qmp:
            assert qmp.version >= (7, 0, 0)
            assert await commands.status(qmp) == commands.Status("running", True)
            await commands.stop(qmp)
            assert (await commands.status(qmp)).running is False
            with pytest.raises(RefusedError) as caught:
                await qmp.execute("device_del", id="nothing")
            assert caught.value.error_class == "DeviceNotFound"
            assert (caught.value.command, caught.value.arguments) == ("device_del", {"id": "nothing"})
            with pytest.raises(RefusedError, match="no-such-command"):
                await qmp.execute("no-such-command")

    with bare(state) as machine:
        run(talk(machine))


def test_events_reach_those_who_asked(state):
    async def talk(machine):
        async with await connect_qmp(machine.directory, owner=True) as qmp:
            with qmp.listen("STOP") as stops, qmp.listen() as all_events:
                await commands.stop(qmp)
                await commands.cont(qmp)
                assert (await stops.next(60)).name == "STOP"
                assert [(await all_events.next(60)).name for _ in range(2)] == ["STOP", "RESUME"]
                with pytest.raises(TimeoutError):
                    await stops.next(0.05)
            with pytest.raises(TimeoutError):
                await qmp.wait_for("STOP", 0.05)
            waiting = asyncio.create_task(qmp.wait_for(("STOP", "RESUME"), 60))
            await asyncio.sleep(0)
            await commands.stop(qmp)
            assert (await waiting).name == "STOP"
            assert [event.name for event in qmp.recent] == ["STOP", "RESUME", "STOP"]

    with bare(state) as machine:
        run(talk(machine))


def test_visitors_are_served_while_the_owner_holds_its_monitor(state):
    async def visit(machine):
        async with await connect_qmp(machine.directory) as qmp:
            return (await commands.status(qmp)).state

    async def talk(machine):
        async with await connect_qmp(machine.directory, owner=True):
            assert await asyncio.gather(*(visit(machine) for _ in range(12))) == ["running"] * 12
            with pytest.raises(ControlError, match="did not greet"):
                await connect_qmp(machine.directory, owner=True, timeout=0.3)

    with bare(state) as machine:
        run(talk(machine))


def test_quit_ends_the_session_and_wakes_everybody(state):
    async def talk(machine):
        qmp = await connect_qmp(machine.directory, owner=True)
        with qmp.listen() as events:
            await commands.quit(qmp)
            heard = [event.name async for event in events]
            with pytest.raises(DisconnectedError):
                await events.next(1)
        assert heard == ["SHUTDOWN"]
        assert qmp.closed
        with pytest.raises(DisconnectedError, match="query-status"):
            await qmp.execute("query-status")
        await qmp.close()

    with bare(state) as machine:
        run(talk(machine))
        assert machine.process.wait(60) == 0


def test_a_killed_qemu_fails_the_command_in_flight(state):
    async def talk(machine):
        async with await connect_qmp(machine.directory, owner=True) as qmp:
            machine.process.kill()
            with pytest.raises(DisconnectedError):
                while True:
                    await qmp.execute("query-status")

    with bare(state) as machine:
        run(talk(machine))


def test_files_are_handed_over(state):
    (state / "disk").write_bytes(b"x" * 4096)

    async def talk(machine):
        async with await connect_qmp(machine.directory, owner=True) as qmp:
            number = os.open(state / "disk", os.O_RDONLY)
            fdset = await commands.add_fd(qmp, number, note="disk")
            os.close(number)
            node = {"driver": "file", "filename": f"/dev/fdset/{fdset}", "node-name": "n0", "read-only": True}
            await qmp.execute("blockdev-add", node)
            found = await qmp.execute("query-named-block-nodes")
            assert [n["node-name"] for n in found] == ["n0"]
            await qmp.execute("blockdev-del", node_name="n0")
            await qmp.execute("remove-fd", fdset_id=fdset)
            assert await qmp.execute("query-fdsets") == []

    with bare(state) as machine:
        run(talk(machine))


def test_an_inherited_socket_pair(state):
    ours, theirs = socket.socketpair()

    async def talk():
        async with await connect(ours, timeout=60) as qmp:
            return (await commands.status(qmp)).state

    os.set_inheritable(theirs.fileno(), True)
    argv = ["-machine", "none", "-chardev", f"socket,id=q,fd={theirs.fileno()}", "-mon", "chardev=q,mode=control"]
    import subprocess

    process = subprocess.Popen(
        ["qemu-system-x86_64", "-nodefaults", "-display", "none", *argv], pass_fds=[theirs.fileno()], cwd=state
    )
    theirs.close()
    try:
        assert run(talk()) == "running"
    finally:
        process.kill()
        process.wait()


def test_nobody_there(state):
    with pytest.raises(ControlError, match="cannot be reached"):
        run(connect(f"{state}/qmp.sock", timeout=0.1))
    with pytest.raises(ControlError, match="ended before"):
        run(connect(f"{state}/qmp.sock", alive=lambda: False, timeout=30))


def test_nobody_there_on_a_host_that_stalls(state):
    async def reach():
        asyncio.get_running_loop().call_later(0.08, time.sleep, 0.06)
        await connect(f"{state}/qmp.sock", timeout=0.1)

    with pytest.raises(ControlError, match="cannot be reached"):
        run(reach())


def test_a_qemu_that_dies_at_once(state):
    with qemu(state, "-machine", "no-such-machine") as machine:
        machine.process.wait()
        with pytest.raises(ControlError, match="ended before"):
            run(connect_qmp(machine.directory, alive=machine.alive, timeout=30))


def test_a_path_longer_than_the_kernel_allows(state):
    deep = state / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)

    async def serve(reader, writer):
        greeting = {"QMP": {"version": {"qemu": {"major": 9, "minor": 1, "micro": 2}}, "capabilities": []}}
        writer.write(json.dumps(greeting).encode() + b"\n")
        answer(writer, await reader.readline())
        await reader.read()
        writer.close()

    async def talk():
        short = state / "s"
        async with scripted(short, serve):
            short.rename(deep / "qmp.sock")
            async with await connect(str(deep / "qmp.sock")) as qmp:
                return qmp.version

    assert run(talk()) == (9, 1, 2)


def test_events_before_the_first_answer(state):
    async def serve(reader, writer):
        writer.write(b'{"QMP": {"version": {"qemu": {"major": 9, "minor": 1, "micro": 2}}, "capabilities": []}}\n')
        asked = await reader.readline()
        writer.write(b'{"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 2}}\n' * 3)
        answer(writer, asked)
        await reader.read()
        writer.close()

    async def talk():
        async with scripted(state / "s", serve), await connect(f"{state}/s") as qmp:
            return qmp.version, [(event.name, event.at) for event in qmp.recent]

    assert run(talk()) == ((9, 1, 2), [("RESUME", 1.000002)] * 3)


def test_what_qemu_says_before_it_has_noticed_the_session(state):
    """An event of a moment ago, and the answer to a session that went away: the greeting comes after them."""

    async def serve(reader, writer):
        writer.write(b'{"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 2}}\n')
        writer.write(b'{"return": {}, "id": "7"}\n{"error": {"class": "GenericError", "desc": "no"}, "id": "8"}\n')
        writer.write(b'{"QMP": {"version": {"qemu": {"major": 9, "minor": 1, "micro": 2}}, "capabilities": []}}\n')
        answer(writer, await reader.readline())
        await reader.read()
        writer.close()

    async def talk():
        async with scripted(state / "s", serve), await connect(f"{state}/s") as qmp:
            return qmp.version, [event.name for event in qmp.recent]

    assert run(talk()) == ((9, 1, 2), ["RESUME"])


def test_a_server_that_is_not_qemu(state):
    async def serve(reader, writer):
        writer.write(b'{"hello": "world"}\n')
        writer.close()

    async def talk():
        async with scripted(state / "s", serve):
            await connect(f"{state}/s")

    with pytest.raises(ControlError, match="No QMP session"):
        run(talk())
