"""The service: what lists of machines cost beside the command, under a hundred clients too, and what it costs when idle."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from socket import AF_UNIX, socket

from bench.boot import the_guest
from bench.commands import OLD, Build, at_rest, both_builds
from bench.framework import AtMost, Bar, Missing, Table, Way, Within, percentile
from bench.guest_line import PROCESSOR
from tinamou.system.spawn import process_of

__all__ = ["IDLE", "computed", "held", "populated", "tables"]

MANY, IDLE, RUNNING = 1000, 500, 50
CLIENTS, SECONDS, PAUSE = 100, 60.0, 0.5
LS, GET, LOAD = "ls --json", "GET /v1/machines", f"{CLIENTS} clients"
_ASKED = ("GET /v1/machines", "GET /v1/machines/{}", "GET /v1/operations?limit=10", "GET /v1/machines")
P99, ALONE, BESIDE = "p99 of GET /v1/machines", "tinamou ls", "tinamou ls beside them"
_START_SECONDS = 120.0
_LINES, _TOGETHER = ("qmp", "qmp2", "agent", "resident"), 25
_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """Lists of a thousand; a hundred clients; an idle hour in small."""
    builds, missing = both_builds(the_guest(scratch), scratch)
    return [_lists(stack, builds, missing, scratch), _load(stack, builds[0], scratch), _idle(stack, builds[0], scratch)]


@dataclass(frozen=True)
class Served:
    """A service that runs, by its socket and process."""

    path: Path
    pid: int

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """The body of an answer, by a connection of its own. Raises OSError, ValueError for a refusal."""
        connection = HTTPConnection("localhost", timeout=_START_SECONDS)
        connection.sock = socket(AF_UNIX)
        connection.sock.connect(str(self.path))
        headers = {"content-type": "application/json"} if body is not None else {}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        said = response.read()
        connection.close()
        if response.status >= 400:
            raise ValueError(f"{method} {path}: {response.status} {said[:300]!r}")
        return said

    def computed(self) -> float:
        """Seconds of processor time until now."""
        return computed(self.pid)

    def held(self) -> int:
        """Bytes of memory, resident."""
        return held(self.pid)


def computed(pid: int) -> float:
    """Seconds of processor time a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def held(pid: int) -> int:
    """Bytes of memory a process has, resident."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def served(stack: ExitStack, build: Build, state: Path, scratch: Path) -> Served:
    """A service of a state directory, whose machines have the stand-in for QEMU."""
    path = scratch / f"{state.name}.sock"
    environment = {**os.environ, **build.environment, "TINAMOU_STATE": str(state), "TINAMOU_QEMU": str(build.standin)}
    words = [str(build.command), "serve", "--socket", str(path)]
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    deadline = time.monotonic() + _START_SECONDS
    while not path.exists():
        if time.monotonic() > deadline or process.poll() is not None:
            raise RuntimeError("the service did not start")
        time.sleep(0.05)
    return Served(path, process.pid)


# ── lists ──


def _lists(stack: ExitStack, builds: list[Build], missing: list[Missing], scratch: Path) -> Table:
    ways = []
    for build in builds:
        state = Path(build.environment["TINAMOU_STATE"]).with_name("thousand")
        at_rest(state, MANY)
        ways.append(build.timed(LS, TINAMOU_STATE=str(state)))
    one = served(stack, builds[0], Path(builds[0].environment["TINAMOU_STATE"]).with_name("thousand"), scratch)

    def listed() -> Mapping[str, float]:
        before, began = one.computed(), time.perf_counter()
        found = json.loads(one.ask("GET", f"/v1/machines?limit={MANY}"))
        taken = time.perf_counter() - began
        assert len(found["machines"]) == MANY
        time.sleep(0.2)  # it is looked at most ten times a second: this is a look of its own
        return {"": taken, PROCESSOR: one.computed() - before}

    listed()
    ways.append(Way(GET, listed))
    bars: list[Bar] = [Within(GET, 0.2, build.row(LS)) for build in builds if build.name == OLD]
    return Table(f"{MANY:,} machines at rest, listed", ways, builds[-1].row(LS), missing=missing, bars=bars)


# ── load ──


@dataclass
class _Heard:
    """What the clients of one run heard."""

    lists: list[float] = field(default_factory=list)
    answers: int = 0
    wrong: list[str] = field(default_factory=list)


def populated(stack: ExitStack, build: Build, state: Path, running: int = RUNNING) -> None:
    """Machines, of which the first ones run: stand-ins for QEMU, started by hand, since a host has memory for few.

    One process stands for as many machines as it can select among.
    """
    at_rest(state, max(IDLE, running + 1))
    names = [_name(number) for number in range(running)]
    for share in (names[at : at + _TOGETHER] for at in range(0, running, _TOGETHER)):
        words = [str(build.standin), "org.qemu.guest_agent.0"]
        for folder, one in itertools.product((state / "machines" / name for name in share), _LINES):
            words += ["-chardev", f"socket,id={one},path={folder}/{one}.sock"]
        process = subprocess.Popen(words)
        stack.callback(process.wait)
        stack.callback(process.kill)
        for name in share:
            file = state / "machines" / name / "machine.json"
            record = {**json.loads(file.read_text()), "pid": process.pid, "started": process_of(process.pid).started}
            file.write_text(json.dumps(record))


def _name(number: int) -> str:
    return f"m{number:04}"


def _load(stack: ExitStack, build: Build, scratch: Path) -> Table:
    state = Path(build.environment["TINAMOU_STATE"]).with_name("load")
    populated(stack, build, state)
    one = served(stack, build, state, scratch)
    one.ask("GET", "/v1/machines")
    held: list[int] = []

    def load() -> Mapping[str, float]:
        held.append(one.held())
        heard, beside = _Heard(), []
        words, ending = [str(build.command), "ls"], asyncio.Event()

        async def command() -> None:
            while not ending.is_set():
                began = time.perf_counter()
                ended = await asyncio.create_subprocess_exec(
                    *words, env={**os.environ, **build.environment, "TINAMOU_STATE": str(state)}, stdout=subprocess.DEVNULL
                )
                await ended.wait()
                beside.append(time.perf_counter() - began)
                await asyncio.sleep(2)

        async def whole() -> None:
            until = time.monotonic() + SECONDS
            commands = asyncio.ensure_future(command())
            await asyncio.gather(*(_client(one.path, number, until, heard) for number in range(CLIENTS)))
            ending.set()
            await commands

        asyncio.run(whole())
        held.append(one.held())
        if heard.wrong:
            raise RuntimeError(f"{len(heard.wrong)} answers were wrong: {heard.wrong[0]}")
        print(f"{heard.answers} answers, memory {[size >> 20 for size in held]} MiB", file=sys.stderr)
        ranked = sorted(beside)
        return {P99: percentile(heard.lists, 0.99), "median": percentile(heard.lists, 0.5), BESIDE: ranked[len(ranked) // 2]}

    alone = build.timed("ls", TINAMOU_STATE=str(state))
    ways = [Way(LOAD, load), Way(ALONE, alone.run)]
    bars: list[Bar] = [Within(f"{LOAD}: {P99}", 1, f"{LOAD}: {BESIDE}"), Within(f"{LOAD}: {P99}", 1, ALONE)]
    notes = [
        f"{IDLE} machines, {RUNNING} of which run with a stand-in for QEMU; for {SECONDS:g} s clients ask every {PAUSE:g} s",
        "for lists, a machine, operations, a pause, a resume; five listen to events. All answers were as they should be.",
    ]
    return Table("a mixed load", ways, ALONE, notes, bars=bars)


async def _client(path: Path, number: int, until: float, heard: _Heard) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 22)
    try:
        if number % 20 == 19:
            await _listen(reader, writer, until, heard)
            return
        name, turn = _name(number % RUNNING), number
        await asyncio.sleep(number * PAUSE / CLIENTS)
        while time.monotonic() < until:
            turn += 1
            what = _ASKED[turn % len(_ASKED)].format(name)
            if number < RUNNING and turn % 20 == 0:
                what = f"POST /v1/machines/{name}/{'pause' if turn % 40 else 'resume'}"
            began = time.perf_counter()
            status, _ = await _asked(reader, writer, what)
            if what == "GET /v1/machines":
                heard.lists.append(time.perf_counter() - began)
            heard.answers += 1
            if status not in (200, 202):
                heard.wrong.append(f"{what}: {status}")
            await asyncio.sleep(PAUSE)
    except (OSError, asyncio.IncompleteReadError) as error:
        heard.wrong.append(f"client {number}: {error!r}")
    finally:
        writer.close()


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, what: str) -> tuple[int, bytes]:
    """Status and body of an answer, on a connection that is kept."""
    writer.write(f"{what} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return int(head.split()[1]), await reader.readexactly(int(length[1]) if length else 0)


async def _listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, until: float, heard: _Heard) -> None:
    """Events, none of which is left out."""
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    last = 0
    while time.monotonic() < until:
        try:
            line = await asyncio.wait_for(reader.readline(), until - time.monotonic() + 0.01)
        except TimeoutError:
            return
        if line.startswith(b"id: "):
            number = int(line[4:])
            if last and number != last + 1:
                heard.wrong.append(f"event {number} came after {last}")
            last, heard.answers = number, heard.answers + 1


# ── idle ──


def _idle(stack: ExitStack, build: Build, scratch: Path) -> Table:
    state = Path(build.environment["TINAMOU_STATE"]).with_name("idle")
    populated(stack, build, state)
    one = served(stack, build, state, scratch)
    one.ask("GET", "/v1/machines")

    def idle() -> Mapping[str, float]:
        before, began = one.computed(), time.monotonic()
        time.sleep(30)
        share = (one.computed() - before) / (time.monotonic() - began)
        return {"share of a core": share, "memory, MB": one.held() / 1e9}

    bars: list[Bar] = [AtMost("idle: share of a core", 0.01), AtMost("idle: memory, MB", 0.08)]
    notes = [f"{IDLE} machines, {RUNNING} of which run; a share of 10 ms is 1 %, 80 ms of memory are 80 MB."]
    return Table("an idle service", [Way("idle", idle)], "idle", notes, bars=bars)
