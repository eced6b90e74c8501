"""The service and real guests: made, used by every door of it, killed in the middle, taken up again."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from service_here import PATIENCE, Served, operation, serving, started
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, unix_connect

from tinamou.state.record import read

pytestmark = pytest.mark.vm


def socket_to(served: Served, path: str) -> ClientConnection:
    return unix_connect(str(served.path), f"ws://localhost{path}", open_timeout=PATIENCE)


def talk(socket: ClientConnection, until: bytes) -> bytes:
    """What a console prints, up to these bytes."""
    found = b""
    while until not in found:
        piece = socket.recv(timeout=PATIENCE)
        assert isinstance(piece, bytes)
        found += piece
    return found


def heard(socket: ClientConnection) -> tuple[bytes, bytes, dict[str, Any]]:
    """What a command printed, and the last thing that is said of it."""
    out, err, said = b"", b"", {}
    with contextlib.suppress(ConnectionClosed):
        while True:
            frame = socket.recv(timeout=PATIENCE)
            if isinstance(frame, str):
                said = json.loads(frame)
            elif frame[0] == 1:
                out += frame[1:]
            else:
                err += frame[1:]
    return out, err, said


def test_a_guest_by_every_door(state):
    with serving(state) as served:
        made = operation(served, served.ask("POST", "/v1/machines", {"spec": {"name": "web", "forkable": True}}))
        assert made["state"] == "done", made
        _commands(served)
        _console(served)
        _files(served, state)
        _states(served)
        metrics = served.ask("GET", "/metrics").body.decode()
        assert 'tinamou_machines{state="running"} 1.0' in metrics and 'tinamou_vm_vcpus{machine="web"} 1.0' in metrics
        forked = operation(served, served.ask("POST", "/v1/machines/web/fork", {"count": 1, "names": ["copy"]}))
        assert (forked["result"]["machines"], forked["result"]["notes"]) == (["copy"], []), forked
        assert served.ask("POST", "/v1/machines/copy/run", {"argv": ["hostname"]}).json["out"] == "copy\n"
        for name in ("copy", "web"):
            assert operation(served, served.ask("DELETE", f"/v1/machines/{name}?force=true"))["state"] == "done"
        assert served.ask("GET", "/v1/machines").json["machines"] == []


def _commands(served: Served) -> None:
    ran = served.ask("POST", "/v1/machines/web/run", {"argv": ["sh", "-c", "cat; echo bad >&2; exit 3"], "input": "in"}).json
    assert (ran["status"], ran["out"], ran["err"]) == (3, "in", "bad\n")
    missing = served.ask("POST", "/v1/machines/web/run", {"argv": ["nothing-here"]})
    assert (missing.status, missing.json["code"]) == (424, 127)
    with socket_to(served, "/v1/machines/web/exec") as socket:
        socket.send(json.dumps({"argv": ["sh", "-c", "cat; echo $X >&2; exit 5"], "env": {"X": "y"}}))
        socket.send(b"\0" + b"z" * 300_000)
        socket.send(json.dumps({"end": True}))
        assert heard(socket) == (b"z" * 300_000, b"y\n", {"exit": 5})
    with socket_to(served, "/v1/machines/web/exec") as socket:
        socket.send(json.dumps({"argv": ["sh"], "terminal": [80, 24]}))
        socket.send(json.dumps({"resize": [91, 37]}))
        socket.send(b"\0stty size; exit 4\n")
        out, _, said = heard(socket)
        assert b"37 91" in out and said == {"exit": 4}
    with socket_to(served, "/v1/machines/web/exec") as socket:
        socket.send(json.dumps({"argv": ["sleep", "1000"]}))
        assert "started" in json.loads(socket.recv(timeout=PATIENCE))
        socket.send(json.dumps({"signal": 15}))
        assert heard(socket)[2] == {"exit": 143}
    with socket_to(served, "/v1/machines/web/exec") as socket:
        socket.send("[]")
        assert heard(socket)[2]["problem"]["status"] == 422


def _console(served: Served) -> None:
    with socket_to(served, "/v1/machines/web/console") as socket:
        socket.send(b"\n")
        talk(socket, b"#")
        socket.send(b"echo $((6*7))4\n")
        talk(socket, b"424")
        with socket_to(served, "/v1/machines/web/console") as second:
            assert "attached elsewhere" in json.loads(second.recv(timeout=PATIENCE))["problem"]["error"]


def _files(served: Served, state: Path) -> None:
    data = bytes(range(256)) * 5000
    put = served.ask("PUT", "/v1/machines/web/files?path=/tmp/data", data, content_type="application/octet-stream")
    assert put.json == {"path": "/tmp/data", "bytes": len(data), "verified": True}
    got = served.ask("GET", "/v1/machines/web/files?path=/tmp/data")
    assert got.body == data and got.headers["x-tinamou-verified"] == "true"
    part = served.ask("GET", "/v1/machines/web/files?path=/tmp/data", range="bytes=256-511")
    assert (part.status, part.body) == (206, bytes(range(256)))
    archive = served.ask("GET", "/v1/machines/web/files?path=/tmp&archive=true")
    assert archive.body[257:262] == b"ustar" and b"tmp/data" in archive.body
    for path, status in (("/nothing", 424), ("relative", 422), ("", 422), ("/tmp", 424)):
        assert served.ask("GET", f"/v1/machines/web/files?path={path}").status == status, path
    assert [*(state / "service/spool").iterdir()] == []


def _states(served: Served) -> None:
    for verb, wanted in (("pause", "paused"), ("resume", "running")):
        assert operation(served, served.ask("POST", f"/v1/machines/web/{verb}"))["state"] == "done"
        assert served.ask("GET", "/v1/machines/web").json["state"] == wanted
        assert served.ask("GET", "/v1/machines").json["machines"][0]["state"] == wanted


def test_killed_while_it_makes_a_machine(state):
    """At several moments: the operation is known to the next service, and done anew with its key under the same id."""
    body, key = {"spec": {"name": "web"}}, {"Idempotency_Key": "one"}
    served = started(state)
    number = served.ask("POST", "/v1/machines", body, **key).json["id"]
    for stage in ("begun", "QEMU", "again"):
        deadline = time.monotonic() + PATIENCE
        while stage == "QEMU" and not _runs(state) and time.monotonic() < deadline:
            time.sleep(0.01)
        served.kill()
        served.process.stderr.close()
        served = started(state)
        known = served.ask("GET", f"/v1/operations/{number}").json
        assert known["state"] in (("interrupted", "done") if stage == "again" else ("interrupted",)), (stage, known)
        assert served.ask("POST", "/v1/machines", body, **key).json["id"] == number
    try:
        done = operation(served, served.ask("GET", f"/v1/operations/{number}"))
        assert done["state"] == "done", done
        assert served.ask("POST", "/v1/machines/web/run", {"argv": ["hostname"], "timeout": 200}).json["out"] == "web\n"
        served.kill()
        assert read(state / "machines/web").running
    finally:
        served.process.stderr.close()
    with serving(state) as again:
        assert again.ask("GET", "/v1/machines").json["machines"][0]["state"] == "running"
        assert operation(again, again.ask("DELETE", "/v1/machines/web?force=true"))["state"] == "done"


def _runs(state: Path) -> bool:
    record = read(state / "machines/web")
    return record is not None and record.running
