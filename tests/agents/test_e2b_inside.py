"""E2B's own client inside a sandbox whose guest is this host: the real server, and the real program that runs commands."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time

import operations_of_e2b as operations
import pytest
import uvicorn
from e2b import Sandbox, SandboxException
from e2b_serving import Serving, until
from resident_here import Here

from tinamou.guest.resident.line import Line
from tinamou.service.agents.e2b.app import application
from tinamou.service.agents.e2b.entries import Entry
from tinamou.service.agents.e2b.keys import caller_of
from tinamou.service.agents.e2b.live import Live
from tinamou.service.agents.e2b.sandboxes import Sandboxes
from tinamou.state.machines import free_port


class Machine:
    """In the place of a machine that runs: its guest's program is reached on a socket of this host."""

    class record:
        pid = 1

    def __init__(self, path):
        self._path, self._line = path, None

    async def talking(self):
        if self._line is None or not self._line.free:
            self._line = Line(self._path)
            await self._line.hello(60)
        return self._line

    def share(self):
        pass

    def drop_line(self):
        if self._line is not None:
            self._line.close()


class OfThisHost(Sandboxes):
    def __init__(self, path):
        super().__init__({})
        self._path = path

    def state(self, entry):
        return "running"

    async def live(self, entry):
        return self._live.setdefault(entry.id, Live(entry, Machine(self._path)))


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """A sandbox, as the client holds it."""
    here = Here(tmp_path)
    port, began, key = free_port(), threading.Event(), Serving.key("test")
    url = f"http://127.0.0.1:{port}"

    async def serve():
        async with OfThisHost(here.path) as sandboxes:
            now = time.time()
            owner = caller_of(key).name
            entry = Entry("sb1", "sb1", owner, "base", "secret", now, now + 600, env={"HERE": "yes"}, ready=True)
            sandboxes.entries.put(entry)
            server.append(uvicorn.Server(uvicorn.Config(application(sandboxes), port=port, log_level="warning")))
            began.set()
            await server[0].serve()

    server = []
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    began.wait()
    until(lambda: server[0].started)
    for name in ("E2B_API_URL", "E2B_SANDBOX_URL"):
        monkeypatch.setenv(name, url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("E2B_API_KEY", key)
    try:
        yield Sandbox.connect("sb1")
    finally:
        server[0].should_exit = True
        thread.join()
        with contextlib.suppress(Exception):
            here.end()
        here.hang_up()


def test_commands(sandbox):
    assert sandbox.commands.run("echo $HERE").stdout == "yes\n"
    operations.commands(sandbox)


def test_files(sandbox, tmp_path):
    operations.files(sandbox, str(tmp_path / "top"), os.environ["E2B_SANDBOX_URL"])


def test_what_cannot_be(sandbox):
    for what, says in (
        (lambda: sandbox.commands.run("true", cwd="/nowhere"), "cannot begin in the folder"),
        (lambda: sandbox.files.read("/etc"), "no regular file"),
        (lambda: sandbox.files.list("/etc/passwd"), "no folder"),
        (lambda: sandbox.files.make_dir("/etc/passwd"), "no folder"),
        (lambda: sandbox.files.write("/proc/x", "1"), "nonexistent|No such|cannot create"),
    ):
        with pytest.raises(SandboxException, match=says):
            what()


def test_metrics_are_the_guests(sandbox):
    [metric] = sandbox.get_metrics()
    assert metric.cpu_count >= 1 and 0 < metric.mem_used < metric.mem_total and 0 < metric.disk_used < metric.disk_total
