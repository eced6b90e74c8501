"""What one session takes of QEMU: how long it waits, how much it reads and keeps; and that it goes on, or ends, in time."""

from __future__ import annotations

import asyncio
import json
import os
import types
from pathlib import Path

import pytest
import stand_in
from lying import machine
from running import run, scripted

from tinamou.control import DisconnectedError, RefusedError, SilentError, commands, connect
from tinamou.control.pipelined import Monitor
from tinamou.control.slots import free_slot
from tinamou.control.wire import EVENT_BYTES, LARGE_BYTES, MESSAGE_BYTES, GarbledError, parsed
from tinamou.errors import ControlError, ImageError
from tinamou.images.chain import read_layer
from tinamou.network import attend
from tinamou.snapshots.graph import block_graph
from tinamou.snapshots.save import let_run_on
from tinamou.snapshots.stream import pour
from tinamou.system.lines import json_of

GREETING = json.dumps(stand_in.GREETING).encode() + b"\n"


def saying(*answers, before=b""):
    """A QEMU that gives these answers one after another, whatever it is asked; bytes go out as they are."""

    async def serve(reader, writer):
        writer.write(GREETING)
        left = list(answers)
        while line := await reader.readline():
            asked = json.loads(line)
            if asked["execute"] == "qmp_capabilities":
                writer.write(before + json.dumps({"return": {}, "id": asked["id"]}).encode() + b"\n")
            elif left and isinstance(answer := left.pop(0), bytes):
                writer.write(answer.replace(b"ID", asked["id"].encode()))
            elif answer is not None:
                writer.write(json.dumps({"return": answer, "id": asked["id"]}).encode() + b"\n")
        writer.close()

    return serve


def with_session(state, work, *answers, before=b""):
    async def talk():
        async with scripted(state / "s", saying(*answers, before=before)), await connect(f"{state}/s") as session:
            return await work(session)

    return run(talk())


def test_a_late_answer_is_dropped_and_the_session_goes_on(state):
    late = b'{"return": "late", "id": "1"}\n{"return": "too late", "id": "2"}\n{"return": "now", "id": "ID"}\n'

    async def work(session):
        with pytest.raises(SilentError, match=r"query-status within 0\.1 s"):
            await session.execute("query-status", timeout=0.1)
        return await session.execute("query-name")

    assert with_session(state, work, None, late) == "now"


def test_a_cancelled_command_leaves_the_session_usable(state):
    async def work(session):
        asked = asyncio.create_task(session.execute("query-status"))
        await asyncio.sleep(0.05)
        asked.cancel()
        await asyncio.wait([asked])
        return await session.execute("query-name")

    assert with_session(state, work, None, {"name": "a"}) == {"name": "a"}


def test_closing_waits_for_nobody(state):
    async def talk():
        with machine("one", qmp="never-answers") as record:
            session = await connect(str(record.file("qmp2.sock")))
            asked = [asyncio.create_task(session.execute("stop")) for _ in range(3)]
            await asyncio.sleep(0.05)
            await asyncio.wait_for(session.close(), 60)
            for one in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(one, DisconnectedError)

    run(talk())


@pytest.mark.parametrize(
    "message",
    [
        b'{"return": "' + b"x" * (MESSAGE_BYTES + 70_000) + b'", "id": "ID"}\n',
        b'{"event": "E", "data": {"x": "' + b"x" * EVENT_BYTES + b'"}, "timestamp": {"seconds": 1, "microseconds": 1}}\n',
        b'{"event": "E", "data": [1]}\n',
        b'{"event": "E", "timestamp": {"seconds": 1e400}}\n',
        b'{"return": {}, "id": 7}\n',
        b'{"id": "ID"}\n',
        b"[]\n",
        b"\xff\xfe\n",
        b'{"return": ' + stand_in.DEEP + b', "id": "ID"}\n',
        b'{"return": "\\ud800", "id": "ID"}\n',
        b'{"return": Infinity, "id": "ID"}\n',
        b'{"return": ' + b"9" * 5000 + b', "id": "ID"}\n',
        b'{"return": [' + b"{}," * 250_000 + b'{}], "id": "ID"}\n',
    ],
    ids=lambda message: repr(message[:30]),
)
def test_what_no_qemu_sends_ends_the_session(state, message):
    async def work(session):
        with pytest.raises(DisconnectedError, match="no QMP during query-block") as told:
            await session.execute("query-block" if b"{}," in message else "query-blocks")
        assert len(str(told.value)) < 1000
        assert session.closed
        with pytest.raises(DisconnectedError, match="no QMP"):
            await session.execute("query-status")

    with_session(state, work, message)


def test_a_long_answer_where_one_is_expected(state):
    async def work(session):
        return await session.execute("query-block")

    assert len(with_session(state, work, ["x" * 1000] * 5000)) == 5000
    assert MESSAGE_BYTES < 5_000_000 < LARGE_BYTES


def test_an_odd_refusal(state):
    async def work(session):
        with pytest.raises(ControlError, match="answered what has no text 'class'"):
            await session.execute("query-status")
        with pytest.raises(RefusedError, match="query-status"):
            await session.execute("query-status")

    odd = b'{"error": {"class": [], "desc": 1}, "id": "ID"}\n'
    with_session(state, work, odd, b'{"error": {"class": "GenericError", "desc": "no"}, "id": "ID"}\n')


def test_events_nobody_hears_are_not_kept(state):
    async def work(session):
        with session.listen() as deaf:
            with pytest.raises(DisconnectedError, match="no QMP during query-status"):
                await session.execute("query-status")
            assert session.broken is not None
            assert "more events than can be heard" in session.broken.why
            assert (await deaf.next(60)).name == "E"
        assert len(session.recent) == 128

    with_session(state, work, stand_in.event("E") * 5000)


def test_a_qemu_that_only_talks(state):
    async def work(session):
        with pytest.raises(DisconnectedError, match="during query-status"):
            await session.execute("query-status")
        assert session.broken is not None
        assert "more than 10000 events" in session.broken.why

    with_session(state, work, stand_in.event("E") * 20_000)


def test_events_before_the_greeting_is_answered_are_bounded(state):
    async def work(session):
        return len(session.recent)

    assert with_session(state, work, before=stand_in.event("E") * 5000) == 128


LOOKED_AT = [way for way in stand_in.QMP if way not in ("honest", "escapes", "surrogate", "odd-version")]
"""The ways to lie that show without looking into the answers."""


@pytest.mark.parametrize("way", LOOKED_AT)
def test_a_monitor_that_is_not_waited_for(state, way):
    async def talk(path):
        async with Monitor(path) as monitor:
            await monitor.execute([("query-status", {}), ("cont", {})], until="RESUME", timeout=0.5)

    with machine("one", qmp=way) as record, pytest.raises(ControlError):
        run(talk(str(record.file("qmp.sock"))))


GRAPH = {"nodes": [{"id": 1, "type": "block-backend", "name": "disk0-dev"}, {"id": 2, "type": "block-driver", "name": "a"}]}


def edges(*pairs):
    return [{"parent": parent, "child": child, "name": name, "perm": ["write"]} for parent, child, name in pairs]


LONG = [(2, 1000, "backing"), *((number, number + 1, "backing") for number in range(1000, 1400))]
LONG += [(parent, 5000 + parent, "file") for parent, *_ in LONG]


@pytest.mark.parametrize(
    "graph",
    [
        {},
        {"nodes": 7, "edges": []},
        {**GRAPH, "edges": edges((1, 2, "root"), (2, 2, "backing"))},
        {**GRAPH, "edges": edges((1, 9, "root"))},
        {**GRAPH, "edges": [{"parent": 1, "child": 2, "name": "root"}]},
        {**GRAPH, "edges": edges(*[(1, 2, "root")] * 500, *LONG)},
        {"nodes": [], "edges": edges((10**30, 2, "root"))},
    ],
)
def test_what_is_no_block_graph(state, graph):
    async def work(session):
        with pytest.raises(ControlError, match="QEMU answered what"):
            await block_graph(session)

    with_session(state, work, graph, [])


@pytest.mark.parametrize("fdsets", [7, [7], [{"fds": 1}], [{"fds": [], "fdset-id": "x"}]])
def test_what_are_no_descriptors(state, fdsets):
    async def work(session):
        with pytest.raises(ControlError, match="QEMU answered what"):
            await block_graph(session)

    with_session(state, work, {"nodes": [], "edges": []}, fdsets)


@pytest.mark.parametrize("buses", [7, [7], [{"devices": 7}], [{"devices": [{"qdev_id": 7}]}]])
def test_what_are_no_slots(state, buses):
    async def work(session):
        with pytest.raises(ControlError, match="QEMU answered what"):
            await free_slot(session, [])

    with_session(state, work, buses)


@pytest.mark.parametrize("state_said", ["", "RUNNING", "x" * 100, "run ning", "running\n"])
def test_what_is_no_run_state(state, state_said):
    async def work(session):
        with pytest.raises(ControlError, match="no run state"):
            await commands.status(session)

    with_session(state, work, {"status": state_said, "running": True})


def test_a_save_that_never_ends(state):
    async def work(session):
        with pytest.raises(ControlError, match="did not save the machine's state within 1 s"):
            await pour(session, state / "state.zst", None, seconds=1.0)
        await let_run_on(session)

    with_session(state, work, {}, {}, *[{"status": "active", "ram": {"transferred": 1, "total": 2}}] * 5000)


RUNS = {"status": "running", "running": True}


def test_a_device_that_is_never_released(state):
    async def work(session):
        with pytest.raises(ControlError, match=r"did not release the device a within 0\.5 s"):
            await commands.device_del(session, "a", timeout=0.5)

    with_session(state, work, RUNS, stand_in.event("DEVICE_DELETED", device="b") * 500 + b'{"return": {}, "id": "ID"}\n')


BUSY = b'{"error": {"class": "GenericError", "desc": "guest is busy (power indicator blinking)"}, "id": "ID"}\n'
NEVER = b'{"error": {"class": "GenericError", "desc": "Bus has no hot-plug"}, "id": "ID"}\n'
TAKEN = b'{"return": {}, "id": "ID"}\n'


@pytest.mark.parametrize("first", [BUSY, TAKEN])
def test_a_guest_at_work_on_the_slot_is_asked_again(state, monkeypatch, first):
    monkeypatch.setattr(commands, "_ASKED_AGAIN", 0.2)

    async def work(session):
        await commands.device_del(session, "a", timeout=60)

    with_session(state, work, RUNS, first, BUSY, TAKEN + stand_in.event("DEVICE_DELETED", device="a"))


def test_a_slot_that_gives_nothing_back_is_told_at_once(state):
    async def work(session):
        with pytest.raises(RefusedError, match="no hot-plug"):
            await commands.device_del(session, "a", timeout=60)

    with_session(state, work, RUNS, NEVER)


@pytest.mark.parametrize("before", ["prelaunch", "inmigrate"])
def test_nothing_is_asked_back_of_a_machine_that_never_ran(state, before):
    """QEMU 7.2 to 11.1 take it once, and refuse every repeat until a restart."""

    async def work(session):
        with pytest.raises(ControlError, match="cannot be released now"):
            await commands.device_del(session, "a", timeout=60)

    with_session(state, work, {"status": before, "running": False})


@pytest.mark.parametrize("line", [b"", b"{", b'{"a": NaN}', b'"\\udfff"', b"[" * 600 + b"]" * 600, b"[" * 20000, b"\x80"])
def test_what_is_no_json(line):
    with pytest.raises(ValueError, match=r"."):
        json_of(line)
    with pytest.raises(GarbledError):
        parsed(line)


def test_json_as_qemu_spells_it():
    assert json_of(b'{"a": "\\ud83d\\ude00", "b": [[1]]}\r') == {"a": "\N{GRINNING FACE}", "b": [[1]]}
    assert json_of(b"[" * 500 + b"]" * 500)


def test_a_disk_that_is_a_pipe_by_now(tmp_path, monkeypatch):
    disk, other = tmp_path / "disk", tmp_path / "other"
    os.mkfifo(disk)
    other.write_bytes(b"x" * 512)
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **how: stat(other if path == disk else path, **how))
    with pytest.raises(ImageError, match="cannot be opened"):
        read_layer(disk)


def test_a_capture_that_was_made_long(state, monkeypatch):
    monkeypatch.setattr(attend, "_MOST_CAPTURED", 3 << 20)
    target = state / "target.pcap"

    async def work(session):
        record = types.SimpleNamespace(name="m", uid=None, directory=str(state), file=lambda name: state / name)
        stopped = asyncio.Event()
        taking = asyncio.create_task(attend.capture(record, session, 0, target, stopped, 60.0))
        while not (state / "net0.pcap").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with (state / "net0.pcap").open("r+b") as file:
            file.truncate(1 << 40)
        stopped.set()
        return await taking

    monkeypatch.setattr(attend, "specs_of", lambda record: {0: None})
    assert with_session(state, work, {"fdset-id": 1, "fd": 9}, {}, {}, {}) == target.stat().st_size == 3 << 20
    assert not (state / "net0.pcap").exists()
