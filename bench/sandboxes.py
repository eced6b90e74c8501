"""Sandboxes by E2B's own client beside the library: request to first answered command, all from one pool."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.framework import Bar, Table, Way, Within
from tinamou import SharedPool
from tinamou.errors import StateError
from tinamou.machine import pooled
from tinamou.machine.pooled import PoolClient
from tinamou.spec import load_spec
from tinamou.state import tokens
from tinamou.state.machines import free_port
from tinamou.system.loop_thread import wait_for
from tinamou.system.sockets import NotListeningError
from tinamou.system.spawn import end, spawn

__all__ = ["tables"]

POOL, SIZE = "bench", 3
TAKEN, SHELL, FORK, SANDBOX, FRESH = (
    "machine of the pool",
    "machine of the pool, by a login shell",
    "fork of a machine of the pool",
    "sandbox of the pool",
    "sandbox, no pool",
)
_START_SECONDS = 60.0


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """One at a time; the pool is full when the clock starts."""
    wait_for(pooled.create(POOL, SIZE, spec=load_spec({"image": "tiny", "net": []})))
    stack.callback(pooled.remove, POOL)
    _serve(stack, scratch)
    ways = [
        Way(TAKEN, _taken("true")),
        Way(SHELL, _taken("/bin/sh", "-l", "-c", "true")),
        Way(FORK, _forked),
        Way(SANDBOX, _sandbox("pooled")),
        Way(FRESH, _sandbox("fresh")),
    ]
    notes = [
        "Sandboxes are made, and their commands run, by E2B's client over HTTP; without a pool they are warm forks.",
        "That client has every command run by a login shell, which costs more than the command.",
    ]
    bars: list[Bar] = [Within(SANDBOX, 2, FORK), Within(SANDBOX, 2, SHELL)]
    return [Table("request → first command answered in a sandbox (tiny)", ways, TAKEN, notes, bars=bars)]


def _serve(stack: ExitStack, scratch: Path) -> None:
    """A service of this state directory, and what the client must be told of it."""
    table, port = scratch / "templates.toml", free_port()
    table.write_text(f'[pooled]\npool = "{POOL}"\n[fresh]\nimage = "tiny"\n[fresh.machine]\ncpus = 2\n')
    words = [sys.executable, "-m", "tinamou", "serve", "--socket", str(scratch / "s"), "--e2b", f"127.0.0.1:{port}"]
    process = spawn([*words, "--e2b-templates", str(table)], log=str(scratch / "log"), environment=dict(os.environ))
    stack.callback(end, process, grace=10.0)
    url = f"http://127.0.0.1:{port}"
    key = tokens.create("bench", verbs=["*"])
    os.environ |= {"E2B_API_URL": url, "E2B_SANDBOX_URL": url, "E2B_API_KEY": key, "NO_PROXY": "127.0.0.1"}
    deadline = time.monotonic() + _START_SECONDS
    while "at http" not in (scratch / "log").read_text():
        if time.monotonic() > deadline:
            raise StateError("the service did not start", why=(scratch / "log").read_text())
        time.sleep(0.1)


def _full() -> None:
    while wait_for(_waiting()) < SIZE:
        time.sleep(0.05)


async def _waiting() -> int:
    try:
        return int((await PoolClient(POOL).ask("look"))["waiting"])
    except (NotListeningError, KeyError):
        return 0


def _taken(*words: str) -> Callable[[], Mapping[str, float]]:
    def run() -> Mapping[str, float]:
        _full()
        began = time.perf_counter()
        with SharedPool(POOL).take() as machine:
            machine.run([*words])
            return {"": time.perf_counter() - began}

    return run


def _forked() -> Mapping[str, float]:
    with SharedPool(POOL).take() as machine:
        _full()
        began = time.perf_counter()
        with machine.fork() as fork:
            fork.run(["true"])
            return {"": time.perf_counter() - began}


def _sandbox(template: str) -> Callable[[], Mapping[str, float]]:
    def run() -> Mapping[str, float]:
        from e2b import Sandbox

        _full()
        began = time.perf_counter()
        sandbox: Any = Sandbox.create(template)
        try:
            sandbox.commands.run("true")
            return {"": time.perf_counter() - began}
        finally:
            sandbox.kill()

    return run
