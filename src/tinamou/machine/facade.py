"""The machine people hold, asynchronous: described, started, used, forked, ended; and the pools it can be taken from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

from tinamou.errors import StateError
from tinamou.images.progress import Progress, silent
from tinamou.machine import encrypted, life
from tinamou.machine.connected import READY_SECONDS, Connected
from tinamou.machine.reach import Reach
from tinamou.spec import MachineSpec, load_spec
from tinamou.state.record import Record

if TYPE_CHECKING:
    from types import TracebackType

    from tinamou.control import Session
    from tinamou.guest.agent import Agent, Completed
    from tinamou.guest.ready import ReadyReport
    from tinamou.machine.forking import Request
    from tinamou.machine.pool import ForkPool
    from tinamou.snapshots.checkpoint import Checkpoint

__all__ = ["AsyncMachine", "AsyncPool", "AsyncSharedPool"]

TAKE_SECONDS = 60.0
"""How long a machine of a pool is waited for."""


class AsyncMachine(Reach):
    """One virtual machine, started on entering ``async with`` and gone without trace on leaving it.

    ``image`` and ``settings`` are the fields of a machine file (docs/reference/spec.md), short names included:
    ``AsyncMachine("debian", cpus=2, memory="1G")``. With ``keep`` the machine stays, stopped, when the block ends.
    With ``warm`` it is a fork of a machine that was booted once for the same wish: milliseconds from the second time on,
    and without a network unless ``net`` asks for one. Without ``wait`` it is started as soon as QEMU runs, whether the
    guest has an agent that will ever answer or not. ``timeout`` is how long the guest may take to answer, in seconds.
    Raises SpecError at once for a bad description.
    """

    def __init__(
        self,
        image: str = "tiny",
        *,
        keep: bool = False,
        warm: bool = False,
        wait: bool = True,
        timeout: float = READY_SECONDS,
        progress: Progress = silent,
        **settings: Any,
    ) -> None:
        if warm and not {"net", "nics"} & settings.keys():
            settings["net"] = []
        self._prepare(load_spec({"image": image, **settings}), keep, warm, wait, timeout, progress)

    def _prepare(self, spec: MachineSpec, keep: bool, warm: bool, wait: bool, timeout: float, progress: Progress) -> None:
        self.spec: MachineSpec = spec
        self.timeout = timeout
        self._keep, self._warm, self._wait = keep, warm, wait
        self._progress = progress
        self._connected: Connected | None = None

    @classmethod
    def of(
        cls,
        spec: MachineSpec,
        *,
        keep: bool = False,
        warm: bool = False,
        wait: bool = True,
        timeout: float = READY_SECONDS,
        progress: Progress = silent,
    ) -> Self:
        """A machine that will be what the spec describes; the other arguments are those of the class."""
        machine = cls.__new__(cls)
        machine._prepare(spec, keep, warm, wait, timeout, progress)
        return machine

    @classmethod
    def around(cls, connected: Connected) -> Self:
        """A machine that runs already, as the program holds it from now on."""
        keep = not connected.record.ephemeral
        machine = cls.of(connected.spec, keep=keep, timeout=connected.timeout)
        machine._connected = connected
        return machine

    @property
    def connected(self) -> Connected:
        """The running machine with its lines. Raises StateError before the start and after the end."""
        if self._connected is None:
            raise StateError("the machine is not running", fix="enter it with a with-block, or call start()")
        return self._connected

    @property
    def record(self) -> Record:
        """Its record in the state directory. Raises StateError before the start and after the end."""
        return self.connected.record

    @property
    def agent(self) -> Agent:
        """The guest's agent. Raises StateError before the start and after the end."""
        return self.connected.agent

    @property
    def running(self) -> bool:
        """Whether it has been started, and its QEMU lives."""
        return self._connected is not None and self._connected.running

    @property
    def name(self) -> str:
        """The machine's name, which is its guest's hostname."""
        return self.record.name

    async def start(self) -> ReadyReport:
        """Start the machine and wait until its guest answers; returns the stages of the boot, timed."""
        from tinamou.machine import booting

        since = time.monotonic()
        if self._warm:
            return await self._start_warm(since)
        begun = await booting.begun(self.spec, ephemeral=not self._keep, progress=self._progress)
        machine = Connected(begun.record, begun.plan, timeout=self.timeout, since=since)
        try:
            report = await (booting.until_up(machine) if self._wait else booting.until_launched(machine))
        except BaseException:
            await machine.end()
            raise
        self._connected = machine
        return report

    async def _start_warm(self, since: float) -> ReadyReport:
        """Fork a machine that was booted once for this request, or take one from a pool for the same request."""
        from tinamou.guest.ready import woken as report
        from tinamou.machine.acquire import pooled_or_forked

        waking = pooled_or_forked(self.spec, keep=self._keep, timeout=self.timeout, progress=self._progress)
        woken, ended = await waking
        self._connected = Connected.of_fork(woken, ended)
        return report(since)

    async def session(self) -> Session:
        """The QMP session of the process that owns the machine."""
        return await self.connected.session()

    async def run(
        self,
        command: str | Sequence[str],
        *,
        input: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a command in the guest: a string in its shell, a list of words as it is.

        ``timeout`` in seconds. Raises GuestError when it ends with a status other than 0, unless ``check`` is false.
        """
        return await self.connected.run(command, input=input, environment=environment, timeout=timeout, check=check)

    async def _settled_agent(self) -> Agent:
        return await self.connected.settled_agent()

    async def checkpoint(self, name: str = "", *, kind: Request = "auto", ephemeral: bool = False) -> Checkpoint:
        """Save the whole state of the machine, which goes on; an ``ephemeral`` one is gone with this process.

        ``auto`` takes an instant one of a forkable machine, else a portable one; its ``why`` says the reason. Raises
        StateError for a state that cannot be saved so, ControlError and GuestError; the machine then runs on.
        """
        from tinamou.machine.forking import take_checkpoint

        return await take_checkpoint(self.connected, name, kind=kind, ephemeral=ephemeral)

    @overload
    async def fork(self) -> Self: ...
    @overload
    async def fork(self, count: int) -> list[Self]: ...
    async def fork(self, count: int | None = None) -> Self | list[Self]:
        """A running copy of this running machine with an identity of its own, or ``count`` of them.

        The memory of a forkable machine is saved once, shared by all of them, and gone with the last one; of any other
        machine each loads it anew, which is slower and said by ``progress``. Raises as `checkpoint` does.
        """
        from tinamou.machine.forking import fork_running

        forks = await fork_running(self.connected, 1 if count is None else count, self._progress)
        machines = [type(self).around(one) for one in forks]
        return machines[0] if count is None else machines

    async def pause(self) -> None:
        """Freeze its virtual CPUs."""
        await (await self.session()).execute("stop")

    async def resume(self) -> None:
        """Let its virtual CPUs run on; a suspended machine is taken up where it was. Raises as `suspending.wake_up`."""
        from tinamou.machine.suspending import wake_up
        from tinamou.snapshots.remains import is_suspended

        if is_suspended(self.record):
            record = await wake_up(self.record, dies_with_parent=True)
            self._connected = Connected(record, timeout=self.timeout)
        else:
            await (await self.session()).execute("cont")

    async def suspend(self) -> None:
        """Save a kept machine to disk and end its QEMU: `resume` takes it up, also after a restart of the host.

        Raises StateError for a throw-away machine and for one whose state cannot be saved, ControlError; it runs on then.
        """
        from tinamou.machine.suspending import suspend

        await suspend(self.connected)
        self.connected.refresh()

    async def reset(self) -> None:
        """Press the reset button, and wait until the guest answers again. Raises StateError where memory is encrypted."""
        from tinamou.machine import booting

        encrypted.refuse_reset(self.record)
        self.connected.drop_line()
        await (await self.session()).execute("system_reset")
        await booting.until_up(self.connected)

    async def stop(self, *, grace: float = life.GRACE_SECONDS) -> None:
        """Ask the guest to shut down, cut the power after ``grace`` seconds; a throw-away machine is gone then."""
        if self.running:
            await life.stop(self.connected, grace=grace)
            self._connected = None
        await self.kill()

    async def kill(self) -> None:
        """Cut the power; a throw-away machine is gone then."""
        if self._connected is not None:
            machine, self._connected = self._connected, None
            await machine.end()

    async def release(self, *, stays: bool = False) -> None:
        """Leave the machine to itself: it runs on when this process ends; ``stays`` keeps even a throw-away one."""
        await self.connected.release(stays=stays)

    async def __aenter__(self) -> Self:
        if self._connected is None:
            await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keep and kind is None:
            await self.stop()
        else:
            await self.kill()


class AsyncPool:
    """``size`` machines waiting to be taken. All of them are gone when the block, or the process, ends.

    ``of`` is a checkpoint, or an image, which is booted once and kept as a warm checkpoint; ``settings`` are the fields of
    a machine file; without ``net`` they have no network. ``bound`` limits what the waiting machines may occupy together
    ("500M"): above it none is added. ``timeout`` is how long the guest may take to boot, in seconds.
    """

    def __init__(
        self,
        of: Checkpoint | str = "tiny",
        size: int = 4,
        *,
        bound: str = "",
        timeout: float = READY_SECONDS,
        progress: Progress = silent,
        **settings: Any,
    ) -> None:
        from tinamou.machine.pool import ForkPool

        self._pool: ForkPool = ForkPool(of, size, bound=bound, timeout=timeout, progress=progress, **settings)

    @property
    def waiting(self) -> int:
        """How many machines wait now."""
        return self._pool.waiting

    async def start(self) -> None:
        """Fill the pool. Raises what booting, saving and forking raise."""
        await self._pool.start()

    async def take(self) -> AsyncMachine:
        """A running machine nobody else has, which the taker ends; another takes its place in the background.

        Raises StateError when the pool is closed, and the error of the last attempt when none could be started.
        """
        from tinamou.snapshots.fork import hand_out

        woken = await self._pool.claim()
        await hand_out(woken)
        return AsyncMachine.around(Connected.of_fork(woken))

    async def close(self) -> None:
        """End the machines that wait."""
        await self._pool.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncSharedPool:
    """A pool made by ``tinamou pool create``, by its name: ``await AsyncSharedPool("web").take()``."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def take(self, timeout: float = TAKE_SECONDS) -> AsyncMachine:
        """A running machine nobody else has; gone when it is left, or this process ends.

        Waits up to ``timeout`` seconds for one. Raises StateError, and what starting the last one raised.
        """
        from tinamou.machine.pooled import PoolClient

        return AsyncMachine.around(Connected.of_fork(*await PoolClient(self.name).claim(timeout)))
