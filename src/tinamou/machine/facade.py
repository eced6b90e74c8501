"""The machine people hold, asynchronous: described, started, used, forked, ended."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

from tinamou.errors import StateError
from tinamou.images.progress import Progress, silent
from tinamou.machine import life
from tinamou.machine.connected import READY_SECONDS, Connected
from tinamou.machine.handled import Handled
from tinamou.machine.kept import Kept
from tinamou.machine.of_host import of_host
from tinamou.machine.parts_of import AsyncDisks, AsyncNics, AsyncSnapshots
from tinamou.snapshots.orphans import is_suspended
from tinamou.spec import MachineSpec, load_spec
from tinamou.state import machines
from tinamou.state.record import Record, newest, read
from tinamou.system.closing import IfFailed
from tinamou.system.loop_thread import in_thread
from tinamou.system.paths import this_host

if TYPE_CHECKING:
    from types import TracebackType

    from tinamou.control import Session
    from tinamou.guest.agent import Completed
    from tinamou.guest.clock import Clock
    from tinamou.guest.ready import ReadyReport
    from tinamou.machine.forking import Request
    from tinamou.machine.upgrading import Upgraded
    from tinamou.snapshots.checkpoint import Checkpoint

__all__ = ["AsyncMachine"]


@of_host
class AsyncMachine(Handled, Kept):
    """One virtual machine, started on entering ``async with`` and gone without trace on leaving it.

    ``image`` and ``settings`` are the fields of a machine file (docs/reference/spec.md), short names included:
    ``AsyncMachine("debian", cpus=2, memory="1G")``. With ``keep`` the machine stays, stopped, when the block ends.
    With ``warm`` it is a fork of a machine that was booted once for the same request: milliseconds from the second time on,
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
        self._spec = spec
        self.timeout = timeout
        self._keep, self._warm, self._wait = keep, warm, wait
        self._progress = progress
        self._host = this_host()
        self._connected: Connected | None = None
        self._known: Record | None = None
        self._opened = False

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

    @classmethod
    def open(cls, name: str, *, timeout: float = READY_SECONDS, progress: Progress = silent) -> Self:
        """A machine that exists, running or not, by its name; leaving the block leaves it as it is. Raises StateError."""
        record = machines.find(name)
        machine = cls.of(load_spec(record.spec), keep=True, timeout=timeout, progress=progress)
        machine._known, machine._opened = record, True
        return machine

    @property
    def spec(self) -> MachineSpec:
        """What was asked for."""
        return self._spec

    @property
    def connected(self) -> Connected:
        """The machine this program has started, with its lines. Raises StateError before the start and after the end."""
        if self._connected is None:
            what = "the machine was opened, not started here" if self._opened else "the machine is not running"
            raise StateError(what, fix="enter it with a with-block, or call start()")
        return self._connected

    @contextlib.asynccontextmanager
    async def _at_hand(self, *, long: bool = False) -> AsyncIterator[Connected]:
        """The running machine: as this program holds it, else visited; ``long`` for what takes more than a few commands."""
        if self._connected is not None or self._known is None:
            yield self.connected
            return
        record = life.running(self._known.name)
        async with Connected(record, owner=long and not record.owned, timeout=self.timeout) as machine:
            yield machine

    @property
    def record(self) -> Record:
        """Its record in the state directory. Raises StateError where there is none (yet, or any more)."""
        if self._connected is None and self._known is not None:
            return newest(self._known)
        return self.connected.record

    def _is_now(self, record: Record) -> None:
        self._spec = load_spec(record.next_spec)
        if self._known is not None:
            self._known = record
        if self._connected is not None:
            self._connected.refresh()

    @property
    def running(self) -> bool:
        """Whether its QEMU lives."""
        return (self._connected is not None or self._known is not None) and self.record.running

    @property
    def name(self) -> str:
        """The machine's name, which is its guest's hostname."""
        return self.record.name

    @property
    def snapshots(self) -> AsyncSnapshots:
        """Snapshots of its disks."""
        return AsyncSnapshots(self.name, self._host)

    @property
    def disks(self) -> AsyncDisks:
        """Its disks."""
        return AsyncDisks(self.name, self._host)

    @property
    def nics(self) -> AsyncNics:
        """Its network cards."""
        return AsyncNics(self.name, self._host)

    async def start(self) -> ReadyReport:
        """Start the machine and wait until its guest answers; returns the stages of the boot, timed.

        One that was kept, or opened by its name, is started from its own record and disks. Raises the error of the stage
        that failed.
        """
        from tinamou.machine import booting

        since = time.monotonic()
        if self._warm and self._known is None:
            return await self._start_warm(since)
        if self._known is not None:
            begun = await booting.begun_again(self.record, dies_with_parent=not self._opened)
        else:
            begun = await booting.begun(self._spec, ephemeral=not self._keep, progress=self._progress)
        machine = Connected(begun.record, begun.plan, timeout=self.timeout, since=since)
        async with IfFailed(machine.end):
            report = await (booting.until_up(machine) if self._wait else booting.until_launched(machine))
        if self._opened:
            await machine.release()
        else:
            self._connected = machine
            machine.share()
        return report

    async def _start_warm(self, since: float) -> ReadyReport:
        """Fork a machine that was booted once for this request, or take one from a pool for the same request."""
        from tinamou.guest.ready import restored as report
        from tinamou.machine.acquire import pooled_or_forked

        waking = pooled_or_forked(self._spec, keep=self._keep, timeout=self.timeout, progress=self._progress)
        restored, ended = await waking
        for note in restored.record.notes:
            self._progress(note, None)
        self._connected = Connected.of_fork(restored, ended)
        return report(since)

    async def session(self) -> Session:
        """The QMP session of the process that owns the machine. Raises StateError for one that was opened."""
        return await self.connected.session()

    async def qmp(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """One command of QEMU's monitor, and its answer (source: the QEMU QMP reference manual). Raises ControlError."""
        async with self._at_hand() as machine:
            return await (await machine.session()).execute(command, arguments or {})

    async def run(
        self,
        command: str | Sequence[str],
        *,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        timeout: float | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a command in the guest: a string in its shell, a list of words as it is; 16 MiB of each output are kept.

        It runs as a login of ``user`` would (root when empty), in the folder ``cwd`` (the user's home when empty), with
        ``env`` added to the login's variables, for ``timeout`` seconds at most. Raises GuestError when it ends with a status
        other than 0, unless ``check`` is false.
        """
        how: dict[str, Any] = {"input": input, "env": env, "cwd": cwd, "user": user, "timeout": timeout, "check": check}
        async with self._at_hand() as machine:
            return await machine.run(command, **how)

    async def checkpoint(self, name: str = "", *, kind: Request = "auto", ephemeral: bool = False) -> Checkpoint:
        """Save the whole state of the machine, which goes on; an ``ephemeral`` one is gone with this process.

        ``auto`` takes an instant one of a forkable machine, else a portable one; its ``why`` says the reason. Raises
        StateError for a state that cannot be saved so, ControlError and GuestError; the machine then runs on.
        """
        from tinamou.machine.forking import take_checkpoint

        async with self._at_hand(long=True) as machine:
            return await take_checkpoint(machine, name, kind=kind, ephemeral=ephemeral, progress=self._progress)

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

        async with self._at_hand(long=True) as machine:
            forks = await fork_running(machine, 1 if count is None else count, self._progress)
        held = [type(self).around(one) for one in forks]
        return held[0] if count is None else held

    async def pause(self) -> None:
        """Freeze its virtual CPUs."""
        await self.qmp("stop")

    async def resume(self) -> Clock:
        """Let its virtual CPUs run on, and set its guest's clock; a suspended machine is taken up where it was.

        What became of the clock is returned; where it could not be set, ``progress`` is told the result's ``note``.
        Raises StateError for a damaged state, other hardware or a QEMU that does not take it, LaunchError, ControlError.
        """
        from tinamou.machine.suspending import wake_up

        if not is_suspended(self.record):
            async with self._at_hand() as machine:
                return self._told(await life.resume(machine))
        awake = await wake_up(self.record, dies_with_parent=not self._opened)
        machine = Connected(awake.record, timeout=self.timeout)
        if self._opened:
            await machine.release()
        else:
            self._connected = machine
        return self._told(awake.clock)

    def _told(self, clock: Clock) -> Clock:
        if clock.note:
            self._progress(clock.note, None)
        return clock

    async def suspend(self) -> None:
        """Save a kept machine to disk and end its QEMU: `resume` takes it up, also after a restart of the host.

        Raises StateError for a throw-away machine and for one whose state cannot be saved, ControlError; it runs on then.
        """
        from tinamou.machine.suspending import suspend

        async with self._at_hand(long=True) as machine:
            await suspend(machine)
            self._known = machine.refresh()
        self._connected = None

    async def upgrade(self, binary: str = "") -> Upgraded:
        """Put another QEMU under the machine while it runs: ``binary``, or the one that is found now.

        Its memory stays where it is, and it stands still for some milliseconds; where that cannot be (the result's ``why``)
        it is suspended and resumed. Raises StateError, LaunchError, ControlError; it runs on with the QEMU it had then.
        """
        from tinamou.machine.upgrading import upgrade

        async with self._at_hand(long=True) as machine:
            done = await upgrade(machine, binary, progress=self._progress)
            self._known = machine.refresh()
        return done

    async def reset(self) -> None:
        """Press the reset button, and wait until the guest answers again. Raises StateError where memory is encrypted."""
        from tinamou.machine import booting

        async with self._at_hand(long=True) as machine:
            await booting.reset(machine)

    async def stop(self, *, grace: float = life.GRACE_SECONDS) -> None:
        """Ask the guest to shut down, cut the power after ``grace`` seconds; a throw-away machine is gone then."""
        if self.running:
            async with self._at_hand() as machine:
                await life.stop(machine, grace=grace)
        if self._connected is not None:
            await self.kill()

    async def kill(self) -> None:
        """Cut the power; a throw-away machine is gone then, a kept one can be started again."""
        if self._connected is None and self._known is not None:
            await in_thread(life.kill, self.record)
        elif self._connected is not None:
            machine, self._connected = self._connected, None
            await machine.end()
            self._known = read(machine.record.path) if self._keep else None

    async def remove(self, *, force: bool = False) -> None:
        """Remove a kept machine, its disks and its schedules. Raises StateError while it runs, unless ``force``."""
        from tinamou.machine.cloning import refuse_base

        refuse_base(self.record, force=force)
        if force and self._connected is not None:
            await self.kill()
        await in_thread(life.remove, self.record, force=force)
        self._known = None

    async def release(self, *, stays: bool = False) -> None:
        """Leave the machine to itself: it runs on when this process ends; ``stays`` keeps even a throw-away one."""
        await self.connected.release(stays=stays)

    async def __aenter__(self) -> Self:
        if self._connected is None and not self._opened:
            await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened:
            return
        if self._keep and kind is None:
            await self.stop()
        else:
            await self.kill()
