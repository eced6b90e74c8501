"""The process behind a pool that several commands share: it keeps machines waiting, and hands them to whoever connects.

One keeper per pool, started by ``tinamou pool create``; ``python -m tinamou.machine.keeper NAME``. A machine is handed out
with its open lines (SCM_RIGHTS), so that the taker speaks to it at once; the connection then stays open as long as the
taker has the machine, and the machine is ended when the taker is gone. Should the keeper itself be killed, a shell that
waits for just that clears up: no waiting machine, memory or file stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.errors import TinamouError
from tinamou.machine.forking import take_checkpoint
from tinamou.machine.pool import ForkPool
from tinamou.machine.reconcile import end_machine
from tinamou.snapshots.checkpoint import Checkpoint
from tinamou.snapshots.fork import Restored
from tinamou.snapshots.orphans import give_up
from tinamou.spec import load_spec
from tinamou.state import pools
from tinamou.state.pools import PoolEntry
from tinamou.state.record import change, read
from tinamou.system.closing import Closing
from tinamou.system.loop_thread import in_thread
from tinamou.system.paths import this_host
from tinamou.system.signals import heard
from tinamou.system.spawn import process_of, spawn

__all__ = ["Keeper", "main", "start"]

_ON_DEATH = 'read -r word </dev/fd/$0 || exec "$@"'


class Keeper:
    """Keeps one pool. ``serve`` is its whole life."""

    def __init__(self, entry: PoolEntry) -> None:
        self.entry = entry
        self._pool: ForkPool | None = None
        self._ready: asyncio.Future[ForkPool] = asyncio.get_running_loop().create_future()
        self._callers: set[asyncio.Task[None]] = set()
        self._handed: set[int] = set()

    async def serve(self) -> None:
        """Boot, fill and hand out until cancelled; then end what waits. Raises what booting and forking raise."""
        listener = _listen(self.entry.socket)
        answering = asyncio.create_task(self._accept(listener))
        try:
            async with self._source() as checkpoint:
                pool = ForkPool(checkpoint, self.entry.size, bound=self.entry.bound, lives_on=True)
                try:
                    await pool.start()
                    self._ready.set_result(pool)
                    await asyncio.get_running_loop().create_future()
                finally:
                    await pool.close()
        except TinamouError as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)
            await asyncio.wait([*self._callers, asyncio.create_task(asyncio.sleep(1.0))], timeout=2.0)
            raise
        finally:
            answering.cancel()
            listener.close()

    @contextlib.asynccontextmanager
    async def _source(self) -> Any:
        """The checkpoint its machines are forks of: the one the user named, or one of its own, gone with the pool."""
        from tinamou.machine.checkpoints import find

        if self.entry.checkpoint:
            yield find(self.entry.checkpoint)
            return
        checkpoint = await _booted(self.entry)
        try:
            yield checkpoint
        finally:
            give_up(checkpoint)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            caller = asyncio.create_task(self._serve(connection))
            self._callers.add(caller)
            caller.add_done_callback(self._callers.discard)

    async def _serve(self, connection: socket.socket) -> None:
        """One caller: ``take`` hands out a machine, ``wait`` answers when the pool is full, ``look`` tells how many wait."""
        loop = asyncio.get_running_loop()
        with connection, contextlib.suppress(OSError, ValueError):
            request = json.loads(await loop.sock_recv(connection, 4096) or b"{}").get("request")
            try:
                if request == "take":
                    await self._hand_out(connection, await (await asyncio.shield(self._ready)).claim())
                elif request == "wait":
                    await asyncio.shield(self._ready)
                    await loop.sock_sendall(connection, b"{}\n")
                elif request == "look":
                    await loop.sock_sendall(connection, json.dumps(self._look()).encode() + b"\n")
            except TinamouError as error:
                await loop.sock_sendall(connection, json.dumps({"error": error.to_json()}).encode() + b"\n")

    def _look(self) -> dict[str, object]:
        pool = self._ready.result() if self._ready.done() and not self._ready.exception() else None
        return {"waiting": pool.waiting if pool else 0, "occupied": pool.occupied() if pool else 0, "up": pool is not None}

    async def _hand_out(self, connection: socket.socket, restored: Restored) -> None:
        """Give the machine with its lines to the process at the other end, and end it when that hangs up."""
        loop = asyncio.get_running_loop()
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        directory = Path(restored.record.directory)
        self._handed.add(restored.record.pid)
        with contextlib.suppress(OSError):
            taker = process_of(pid)
            record = change(restored.record, owner_pid=taker.pid, owner_started=taker.started)
            lines = restored.hand_over()
            try:
                socket.send_fds(connection, [json.dumps({"machine": record.name}).encode() + b"\n"], lines)
            finally:
                for descriptor in lines:
                    os.close(descriptor)
            while await loop.sock_recv(connection, 4096):
                pass
        restored.close()
        await in_thread(_end_if_thrown_away, directory)

    def reap(self) -> None:
        """Take note of handed-out machines that have ended: their QEMU is this process's child."""
        for pid in list(self._handed):
            with contextlib.suppress(ChildProcessError):
                if not os.waitpid(pid, os.WNOHANG)[0]:
                    continue
            self._handed.discard(pid)


def _end_if_thrown_away(directory: Path) -> None:
    record = read(directory)
    if record is not None and record.ephemeral:
        end_machine(record)


async def _booted(entry: PoolEntry) -> Checkpoint:
    """A checkpoint of a freshly booted machine, gone with this process."""
    from tinamou.machine.warm import booted

    async with booted(load_spec(entry.spec), timeout=entry.timeout) as machine:
        return await take_checkpoint(machine, f"pool-{entry.name}", ephemeral=True)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path.unlink(missing_ok=True)
    listener.bind(str(path))
    listener.listen(128)
    listener.setblocking(False)
    return listener


def start(name: str) -> None:
    """Start a keeper that outlives this process. Raises OSError."""
    words = [sys.executable, "-m", "tinamou.machine.keeper", name]
    spawn(words, log=str(pools.folder(name) / "keeper.log"), environment={**os.environ, **this_host().environment()})


def main(name: str) -> int:
    """Keep the pool of that name until a request to end (SIGTERM, SIGINT)."""
    me = process_of(os.getpid())
    entry = late.replace(pools.find(name), keeper=(me.pid, me.started))
    pools.write(entry)
    leash = _leash(entry)
    status = 0
    try:
        asyncio.run(_until_asked(entry))
    except TinamouError as error:
        print(f"tinamou: {error}", file=sys.stderr)
        status = error.code
    finally:
        pools.remove(name)
        os.write(leash, b"done\n")
    return status


async def _until_asked(entry: PoolEntry) -> None:
    keeper = Keeper(entry)
    serving = asyncio.ensure_future(keeper.serve())
    ends = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    children, asked = heard([signal.SIGCHLD], lambda _: keeper.reap()), heard(ends, lambda _: serving.cancel())
    with children, asked, contextlib.suppress(asyncio.CancelledError):
        await serving


def _leash(entry: PoolEntry) -> int:
    """Start a shell that waits for this process to end without a word, and then does what every command does first."""
    held, mine = os.pipe()
    words = ["sh", "-c", _ON_DEATH, str(held), sys.executable, "-m", "tinamou", "host", "repair"]
    with Closing(held):
        spawn(
            words,
            log=str(entry.directory / "keeper.log"),
            inherit=(held,),
            environment={**os.environ, **this_host().environment()},
        )
    return mine


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
