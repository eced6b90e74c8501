"""Pools that several commands share, from the side of who makes and uses them: make, take from, look at, remove."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from tinamou.errors import StateError, error_from
from tinamou.machine import keeper
from tinamou.machine.reconcile import reconcile
from tinamou.machine.warm import key_of
from tinamou.snapshots.fork import Restored, given, hand_out
from tinamou.spec import MachineSpec, dump_spec
from tinamou.state import machines, pools
from tinamou.state.folder import plan_of
from tinamou.state.pools import PoolEntry
from tinamou.system.closing import IfFailed
from tinamou.system.logs import last_lines
from tinamou.system.loop_thread import in_thread
from tinamou.system.sockets import NotListeningError, connect_unix
from tinamou.system.spawn import Process, end, process_of

__all__ = ["TAKE_SECONDS", "PoolClient", "create", "for_key", "remove"]

TAKE_SECONDS = 60.0
GRACE_SECONDS = 10.0


async def create(
    name: str, size: int, *, spec: MachineSpec | None = None, checkpoint: str = "", bound: str = "", timeout: float = 300.0
) -> PoolEntry:
    """Start a pool's keeper and wait until the pool is full; the pool then stays until it is removed.

    Its machines are forks of a machine booted for ``spec``, or of the checkpoint of that name. Raises StateError for a name
    in use, and what booting and forking raise; nothing is left then.
    """
    await in_thread(reconcile)
    me = process_of(os.getpid())
    key = await asyncio.to_thread(key_of, spec) if spec is not None else ""
    entry = PoolEntry(
        name=name,
        size=size,
        created=time.time(),
        keeper=(me.pid, me.started),
        spec=dump_spec(spec) if spec is not None else {},
        checkpoint=checkpoint,
        bound=bound,
        key=key,
        timeout=timeout,
    )
    pools.create(entry)
    with IfFailed(remove, name):
        keeper.start(name)
        await PoolClient(name).ask("wait", timeout + TAKE_SECONDS)
    return pools.find(name)


def remove(name: str) -> None:
    """End a pool's keeper and the machines that wait; those that were taken go on. Raises StateError for no pool."""
    try:
        entry = pools.find(name)
    except StateError:
        if "/" in name or not pools.folder(name).is_dir():
            raise
        pools.remove(name)
        return
    if entry.kept and entry.keeper[0] != os.getpid():
        end(Process(*entry.keeper), grace=GRACE_SECONDS)
    if pools.folder(name).is_dir():
        pools.remove(name)
        reconcile()


def for_key(key: str) -> str:
    """The name of a pool whose machines are forks for the same request (`warm.key_of`); empty where there is none."""
    return next((entry.name for entry in pools.every() if entry.key == key and entry.kept), "")


class PoolClient:
    """A pool made by ``tinamou pool create``, by its name: ``await PoolClient("web").take()``."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def claim(self, timeout: float = TAKE_SECONDS) -> tuple[Restored, Callable[[], None]]:
        """A machine nobody else has, running again, and how to tell the keeper that it is over.

        Waits up to ``timeout`` seconds for one. Raises StateError, and what starting the last one raised.
        """
        connection = await self._asked("take", timeout)
        with IfFailed(connection.close):
            try:
                answer, lines = await asyncio.wait_for(_answer(connection), timeout)
                record = machines.find(self._said(answer)["machine"])
                restored = given(record, plan_of(record), lines)
                await hand_out(restored)
            except TimeoutError:
                raise StateError(f"pool {self.name} had no machine for {timeout:g} s", fix="make it larger") from None
        return restored, connection.close

    async def ask(self, request: str, timeout: float = 5.0) -> dict[str, Any]:
        """One question to the keeper: ``wait`` is answered when the pool is full, ``look`` with what it holds."""
        with await self._asked(request, timeout) as connection:
            answer, _ = await asyncio.wait_for(_answer(connection), timeout)
            return self._said(answer)

    async def _asked(self, request: str, timeout: float) -> socket.socket:
        entry, deadline = pools.find(self.name), time.monotonic() + timeout
        while True:
            try:
                connection = connect_unix(str(entry.socket))
            except NotListeningError as error:
                entry = pools.read(self.name) or entry
                if time.monotonic() > deadline or not (entry.directory.is_dir() and entry.kept):
                    raise self._gone() from error
                await asyncio.sleep(0.01)
            else:
                connection.send(json.dumps({"request": request}).encode())
                return connection

    def _said(self, answer: bytes) -> dict[str, Any]:
        if not answer:
            raise self._gone()
        said: dict[str, Any] = json.loads(answer)
        if "error" in said:
            raise error_from(said["error"])
        return said

    def _gone(self) -> StateError:
        said = {"its keeper said": last_lines(pools.folder(self.name) / "keeper.log")}
        return StateError(f"pool {self.name} has no keeper any more", fix=f"tinamou pool create {self.name}", evidence=said)


async def _answer(connection: socket.socket) -> tuple[bytes, list[int]]:
    """The line the keeper sends, and the descriptors that come with it; nothing when it hangs up."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
        said, lines, _, _ = socket.recv_fds(connection, 1 << 16, 2)
    finally:
        loop.remove_reader(connection)
    while said and not said.endswith(b"\n") and (more := await loop.sock_recv(connection, 1 << 16)):
        said += more
    return said, lines
