"""What the service does with requests: those that are in order, and hostile ones."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from running import listens
from service_here import Served, client_of_all, machine, operation, serving, started
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from typed import eventually

from tinamou.service.feed import Event, Feed, Listener
from tinamou.service.openapi import SCHEMAS, document
from tinamou.service.routes import ROUTES
from tinamou.state import tokens
from tinamou.state.record import Record, create


@pytest.fixture
def client(state: Path) -> Iterator[TestClient]:
    with client_of_all() as client:
        yield client


def shaped(name: str, data: Any) -> Any:
    """The answer, which is as the document says."""
    jsonschema.validate(data, {"$ref": f"#/components/schemas/{name}", "components": {"schemas": SCHEMAS}})
    return data


def test_machines_come_in_pages(client, state):
    for number in range(7):
        machine(state, f"m{number}")
    eventually(lambda: len(client.get("/v1/machines").json()["machines"]) == 7, "seven machines")
    first = shaped("Machines", client.get("/v1/machines?limit=3").json())
    assert [one["name"] for one in first["machines"]] == ["m0", "m1", "m2"]
    rest = client.get(f"/v1/machines?limit=1000&after={first['next']}").json()
    assert [one["name"] for one in rest["machines"]] == ["m3", "m4", "m5", "m6"]
    assert rest["next"] is None


def test_who_has_the_answer_is_told_so(client, state):
    machine(state, "web")
    answer = client.get("/v1/machines")
    assert client.get("/v1/machines", headers={"if-none-match": answer.headers["etag"]}).status_code == 304
    machine(state, "web2")
    deadline = time.monotonic() + 30
    while client.get("/v1/machines", headers={"if-none-match": answer.headers["etag"]}).status_code == 304:
        assert time.monotonic() < deadline


def test_one_machine_is_as_the_document_says(client, state):
    machine(state, "web")
    assert shaped("Machine", client.get("/v1/machines/web").json())["state"] == "stopped"
    assert shaped("Snapshots", client.get("/v1/machines/web/snapshots").json())["snapshots"] == []
    assert shaped("Nics", client.get("/v1/machines/web/nics").json())["nics"]
    shaped("Me", client.get("/v1/me").json())
    shaped("Findings", client.get("/v1/findings").json())


@pytest.mark.parametrize("name", ["nobody", "..", "%2e%2e", "..%2f..%2fetc", "a%00b", "A", "x" * 300, "%0a", "%ff", "a b"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_names_that_are_none(client, method, name):
    answer = client.request(method, f"/v1/machines/{name}")
    assert answer.status_code in (404, 405)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_machine_outside_is_none(client, state):
    (state / "outside").mkdir()
    create(Record(name="outside", directory=str(state / "outside"), spec={}))
    assert client.get("/v1/machines/..%2foutside").status_code == 404
    (state / "machines").mkdir(exist_ok=True)
    (state / "machines/link").symlink_to(state / "outside")
    assert client.get("/v1/machines").json()["machines"] == []


BAD = [
    (b"{", 400),
    (b"\xff\xfe", 400),
    (b"[" * 100_000, 400),
    (b"[]", 422),
    (b"null", 422),
    (b'{"spec": []}', 422),
    (b'{"spec": {}, "no": 1}', 422),
    (b'{"spec": {"cpus": "two"}}', 422),
    (b'{"spec": {"name": "../x"}}', 422),
    (b'{"spec": {"name": "a\\u0000b"}}', 422),
    (b'{"spec": {"memory": "1e999"}}', 422),
    (b'{"spec": {"cpus": 1' + b"0" * 4000 + b"}}", 422),
    (b'{"spec": {}, "timeout": NaN}', 422),
    (b'{"spec": {}, "timeout": 1e999}', 422),
    (b'{"spec": {}, "timeout": -1}', 422),
    (b'{"spec": {"image": "\\ud800"}}', 422),
    (b"x" * (2 << 20), 413),
]


@pytest.mark.parametrize(("body", "status"), BAD, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("path", ["/v1/machines", "/v1/plan"])
def test_bodies_that_are_not_understood(client, path, body, status):
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    if b"timeout" in body and path == "/v1/plan":
        status = 422  # an unknown field there
    assert answer.status_code == status, answer.text
    told = shaped("Problem", answer.json())
    assert answer.headers["content-type"] == "application/problem+json" and told["status"] == status


def test_every_field_that_is_wrong_is_named(client):
    answer = client.post("/v1/plan", json={"spec": {"cpus": "two", "memory": "x", "nope": 1}})
    assert {one["field"] for one in answer.json()["problems"]} == {"cpu.count", "memory.size", "nope"}


def test_a_form_of_another_page_is_no_request(client):
    sent = client.post("/v1/plan", content=b'{"spec": {}}', headers={"content-type": "text/plain"})
    assert sent.status_code == 415
    assert client.post("/v1/plan", json={}, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.post("/v1/plan", json={"x": 1}, headers={"origin": "http://localhost"}).status_code == 422
    assert client.get("/v1/me", headers={"host": "evil.example"}).status_code == 421


@pytest.mark.parametrize("path", ["/v1/machines/web/console", "/v1/machines/web/exec"])
def test_a_page_elsewhere_gets_no_console(client, state, path):
    machine(state, "web")
    for headers, code in (({"origin": "http://evil.example"}, 4403), ({"host": "evil.example"}, 4421)):
        with (
            pytest.raises(WebSocketDisconnect) as closed,
            client.websocket_connect(f"ws://localhost{path}", headers=headers),
        ):
            pass
        assert closed.value.code == code


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1&limit=2", "nope=1", "limit=99999", "limit=" + "9" * 5000])
def test_queries_that_are_not_understood(client, query):
    assert client.get(f"/v1/machines?{query}").status_code == 422


def test_no_such_operation(client):
    for number in ("0" * 16, "..", "x"):
        assert client.get(f"/v1/operations/{number}").status_code == 404


def test_what_fails_is_an_operation_with_its_error(client, state):
    machine(state, "web")
    answer = client.post("/v1/machines/web/stop?wait=20", json={})
    told = shaped("Operation", answer.json())
    assert (answer.status_code, told["state"], told["error"]["code"]) == (200, "failed", 118)
    assert told["error"]["fix"] == "tinamou start web"
    assert shaped("Operations", client.get("/v1/operations").json())["operations"][0]["id"] == told["id"]
    assert client.post(f"/v1/operations/{told['id']}/cancel").status_code == 409


def test_asked_again_with_the_same_key_it_is_done_once(client, state):
    machine(state, "web")
    first = client.delete("/v1/machines/web?wait=20", headers={"idempotency-key": "k"})
    again = client.delete("/v1/machines/web?force=true", headers={"idempotency-key": "k"})
    assert first.json()["state"] == "done" and again.status_code == 422
    same = client.delete("/v1/machines/web?wait=20", headers={"idempotency-key": "k"})
    assert (same.status_code, same.json()["id"]) == (200, first.json()["id"])
    machine(state, "web")
    same = client.delete("/v1/machines/web", headers={"idempotency-key": "k"})
    assert same.json()["id"] == first.json()["id"] and same.headers["idempotent-replayed"] == "true"
    assert client.get("/v1/machines/web").status_code == 200


def test_operations_of_others_are_theirs(client, state):
    machine(state, "web")
    number = client.post("/v1/machines/web/stop?wait=20", json={}).json()["id"]
    other = tokens.create("other", verbs=["show", "exec"], machines=["ci-*"])
    seen = client.get(f"/v1/operations/{number}", headers={"authorization": f"Bearer {other}"})
    assert seen.status_code == 404
    assert client.get("/v1/operations", headers={"authorization": f"Bearer {other}"}).json()["operations"] == []


def test_the_document_names_every_route_once():
    found = document(ROUTES)
    names = [one["operationId"] for path in found["paths"].values() for one in path.values()]
    assert len(names) == len(set(names)) == sum(one.method != "WEBSOCKET" for one in ROUTES)
    assert json.loads((Path(__file__).parents[2] / "docs/reference/openapi.json").read_text()) == json.loads(
        json.dumps(found)
    )


def events(sock: socket.socket, wanted: int) -> list[dict[str, Any]]:
    """So many events of a stream."""
    data, found = b"", []
    while len(found) < wanted:
        data += sock.recv(65536)
        whole = data[: data.rfind(b"\n") + 1]
        found = [json.loads(line[6:]) for line in whole.splitlines() if line.startswith(b"data: ")]
    return found


def listen(path: Path, after: int | None) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(str(path))
    last = f"Last-Event-ID: {after}\r\n" if after is not None else ""
    sock.sendall(f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{last}\r\n".encode())
    return sock


def test_events_go_on_after_a_kill(state):
    machine(state, "web")
    served = started(state)
    operation(served, served.ask("POST", "/v1/machines/web/stop", {}))
    with listen(served.path, 0) as sock:
        first = events(sock, 2)
    assert [(one["kind"], one["about"]) for one in first] == [("operation", "web")] * 2
    served.kill()
    served.process.stderr.close()
    with serving(state) as again:
        operation(again, again.ask("POST", "/v1/machines/web/stop", {}))
        with listen(again.path, first[-1]["id"]) as sock:
            more = events(sock, 2)
        numbers = [one["id"] for one in (*first, *more)]
        assert numbers == sorted(set(numbers))
        with listen(again.path, 10_000) as sock:
            data = b""
            while b"event: gap" not in data:
                data += sock.recv(65536)
                assert b"event: machine" not in data


@pytest.mark.slow
def test_who_listens_too_slowly_is_disconnected(state):
    machine(state, "web")
    with serving(state) as served, listen(served.path, None) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert slow.recv(16)
        said = served.process.stderr.fileno()
        os.set_blocking(said, False)
        deadline = time.monotonic() + 120
        while True:  # until the service has given up: then there is an end to what can be read
            for _ in range(50):
                served.ask("POST", "/v1/machines/web/stop", {})
            with contextlib.suppress(BlockingIOError):
                os.read(said, 1 << 20)  # a service whose log nobody reads waits until somebody does
            if _connections(served.process.pid, served.path) == 0 or time.monotonic() > deadline:
                break
        assert time.monotonic() < deadline
        assert served.ask("GET", "/v1/me").status == 200


def test_a_listener_who_is_behind_is_cut_off_and_not_skipped(state):
    feed, cut = Feed(state), []
    feed.open()

    async def heard() -> list[int]:
        async with feed.listening(lambda: cut.append(True)) as listener:
            for number in range(2000):
                feed.tell("machine", "web", {"state": str(number)})
            return [event["id"] async for event in _all(listener)]

    assert asyncio.run(heard()) == [] and cut == [True]
    assert [one["id"] for one in feed.since(1990)[0]] == list(range(1991, 2001))
    again = Feed(state)
    again.open()
    assert again.last == 2000


async def _all(listener: Listener) -> AsyncIterator[Event]:
    while event := await listener.next(0.01):
        yield event


def _connections(pid: int, path: Path) -> int:
    """Connections to a unix socket that are open at the service's end (source: proc_net_unix(5))."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    bound = {str(path), str(path.with_name(f".{path.name}.{pid}"))}
    return sum(len(row) > 7 and row[7] in bound and row[5] == "03" for row in rows)


@pytest.mark.slow
def test_a_caller_who_says_nothing_is_let_go(state):
    with serving(state) as served, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(served.path))
        sock.sendall(b"GET /v1/me HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert sock.recv(1) == b""


def test_heads_without_end_are_refused(state):
    with serving(state) as served, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(served.path))
        try:
            sock.sendall(b"GET /v1/me HTTP/1.1\r\nX: " + b"x" * (1 << 20))
            assert b" 400 " in sock.recv(4096).split(b"\r\n")[0]
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert served.ask("GET", "/v1/me").status == 200


def test_one_service_of_a_state_directory(state):
    with serving(state), pytest.raises(AssertionError, match="somebody listens at"):
        started(state)


@pytest.mark.parametrize("words", [(), ("--tls-cert", "/etc/hostname", "--tls-key", "/etc/hostname")])
def test_nothing_goes_over_tcp_without_tls(state, words):
    with pytest.raises(AssertionError, match=r"served by TLS alone|cannot be used"):
        started(state, "--listen", "127.0.0.1:0", *words)


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not here")
def test_tls_and_tokens(state):
    words = ["-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(state / "key.pem"), "-out", str(state / "cert.pem")]
    subprocess.run(["openssl", "req", "-x509", *words, *files], check=True, stderr=subprocess.DEVNULL)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    secret = tokens.create("ci", verbs=["ls"])
    tls = ["--tls-cert", str(state / "cert.pem"), "--tls-key", str(state / "key.pem")]
    with serving(state, "--listen", f"127.0.0.1:{port}", *tls) as served:
        assert served.ask("GET", "/v1/me").status == 200
        trusted = ssl.create_default_context(cafile=str(state / "cert.pem"))
        for given, status in (({}, 401), ({"Authorization": "Bearer x"}, 401), ({"Authorization": f"Bearer {secret}"}, 200)):
            secure = http.client.HTTPSConnection("localhost", port, context=trusted, timeout=60)
            secure.request("GET", "/v1/me", headers=given)
            assert secure.getresponse().status == status
            secure.close()
        plain = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with pytest.raises((http.client.HTTPException, OSError)):
            plain.request("GET", "/v1/me", headers={"Authorization": f"Bearer {secret}"})
            plain.getresponse()
        plain.close()


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd-socket-activate is not here")
def test_begun_by_the_first_who_connects(state):
    """As systemd begins it from tinamou.socket; its socket stays when the service ends."""
    path = state / "tinamou.sock"
    passed = (f"-E{name}" for name in {*os.environ, "NOTIFY_SOCKET"})
    command = ["systemd-socket-activate", "-l", str(path), *passed]
    command += [sys.executable, "-m", "tinamou", "serve", "--socket", str(state / "other.sock")]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(state / "notify"))
        told.settimeout(60)
        environment = {**os.environ, "NOTIFY_SOCKET": str(state / "notify")}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: listens(path), "its socket")
            assert Served(path, process).ask("GET", "/v1/me").status == 200
            assert told.recv(100) == b"READY=1"
            process.terminate()
            assert told.recv(100) == b"STOPPING=1" and process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
    assert path.exists() and not (state / "other.sock").exists()


def test_units_that_systemd_understands(state):
    words = ["--units", str(state), "--mode", "0660", "--socket", "/run/tinamou/tinamou.sock", "--name", "a b"]
    subprocess.run([sys.executable, "-m", "tinamou", "serve", *words], check=True, stdout=subprocess.DEVNULL)
    text = (state / "tinamou.service").read_text()
    assert "KillMode=process" in text and "serve --name 'a b'" in text
    assert "ListenStream=/run/tinamou/tinamou.sock\nSocketMode=0660" in (state / "tinamou.socket").read_text()
    if analyze := shutil.which("systemd-analyze"):
        units = [str(state / name) for name in ("tinamou.socket", "tinamou.service")]
        done = subprocess.run(
            [analyze, "verify", "--recursive-errors=no", *units], capture_output=True, text=True, check=False
        )
        assert (done.returncode, [line for line in done.stderr.splitlines() if "tinamou" in line]) == (0, [])


def test_what_ran_when_it_was_killed_is_interrupted_and_done_anew_with_its_key(state):
    machine(state, "web")
    folder = state / "service/operations"
    folder.mkdir(parents=True)
    with serving(state) as served:
        done = operation(served, served.ask("POST", "/v1/machines/web/stop", {}, Idempotency_Key="k"))
    entry = folder / f"{done['id']}.json"
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "state": "running", "ended": None}))
    (folder / "0123456789abcdef.json").write_text("{")  # cut short, and of an earlier kind
    (folder / "fedcba9876543210.json").write_text('{"id": "fedcba9876543210"}')
    with serving(state) as served:
        told = served.ask("GET", f"/v1/operations/{done['id']}").json
        assert told["state"] == "interrupted" and "Idempotency-Key" in told["error"]["fix"]
        again = operation(served, served.ask("POST", "/v1/machines/web/stop", {}, Idempotency_Key="k"))
        assert (again["id"], again["state"]) == (done["id"], "failed")
