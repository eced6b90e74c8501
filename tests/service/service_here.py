"""A real service of the test's own, and callers of it as any user of the host."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from tinamou.service.app import application
from tinamou.service.shared import Service
from tinamou.state import tokens
from tinamou.state.record import Record, create, read

PATIENCE = 60.0


def machine(state: Path, name: str, image: str = "tiny") -> Record:
    """A machine at rest, there at once: a service may be looking."""
    aside, folder = state / f"aside-{name}", state / "machines" / name
    aside.mkdir(parents=True)
    folder.parent.mkdir(exist_ok=True)
    create(
        Record(name=name, directory=str(aside), spec={"name": name, "image": image}, image=image, arch="x86_64", created=1.0)
    )
    return create_at(aside, folder)


def create_at(aside: Path, folder: Path) -> Record:
    """The machine, moved to its place."""
    aside.rename(folder)
    found = read(folder)
    assert found is not None
    return found


class UnixConnection(http.client.HTTPConnection):
    """HTTP on a unix socket, connected to as another user where one is named: the kernel keeps who connected."""

    def __init__(self, path: Path, uid: int | None = None, timeout: float = PATIENCE) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path, self._uid = path, uid

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        before = os.geteuid()
        if self._uid is not None:
            os.seteuid(self._uid)
        try:
            self.sock.connect(str(self._path))
        finally:
            os.seteuid(before)


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A service that runs as a process of its own."""

    path: Path
    process: subprocess.Popen[str]
    address: str = ""

    def ask(self, method: str, path: str, body: Any = None, *, uid: int | None = None, **headers: str) -> Answer:
        connection = UnixConnection(self.path, uid)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and "content-type" not in given:
            given["content-type"] = "application/json"
        connection.request(method, path, data, given)
        response = connection.getresponse()
        answer = Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
        connection.close()
        return answer

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def started(state: Path, *words: str, environment: Mapping[str, str] | None = None) -> Served:
    """Start a service of the state directory and wait until it listens."""
    path = state / "tinamou.sock"
    process = subprocess.Popen(
        [sys.executable, "-m", "tinamou", "serve", "--socket", str(path), *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    deadline = time.monotonic() + PATIENCE
    said = []
    assert process.stderr is not None
    while time.monotonic() < deadline:
        line = process.stderr.readline()
        said.append(line)
        if line.startswith("serving at unix:"):
            return Served(path, process)
        if not line:
            break
    raise AssertionError(f"the service did not start: {''.join(said)}")


@contextlib.contextmanager
def serving(state: Path, *words: str) -> Iterator[Served]:
    """A service until the block ends; it is asked to end, and does."""
    served = started(state, *words)
    try:
        yield served
        if served.process.poll() is None:
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(PATIENCE) == 0, served.process.stderr.read()
    finally:
        if served.process.poll() is None:
            served.kill()
        served.process.stderr.close()


def operation(served: Served, answer: Answer, seconds: float = 240.0) -> Any:
    """The operation of an answer, once it has ended."""
    assert answer.status in (200, 202), answer.body
    number = answer.json["id"]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        shown = served.ask("GET", f"/v1/operations/{number}?wait=10").json
        if shown["state"] != "running":
            return shown
    raise AssertionError(f"it did not end: {shown}")


@contextlib.contextmanager
def client_of_all() -> Iterator[TestClient]:
    """The service, asked with a token for everything."""
    secret = tokens.create("all", verbs=["*"])
    with TestClient(application(Service()), base_url="http://localhost") as client:
        client.headers["authorization"] = f"Bearer {secret}"
        yield client
