"""The asynchronous machine: start it, wait until its guest answers, run commands in it, end it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

from tinamou.errors import ControlError, GuestError, StateError
from tinamou.images.progress import Progress, silent
from tinamou.launch.process import died
from tinamou.machine import encrypted, life
from tinamou.machine.reach import Reach, words_of
from tinamou.machine.reconcile import end_machine
from tinamou.machine.starting import Started, begin
from tinamou.spec import MachineSpec, load_spec
from tinamou.state.record import Record, write
from tinamou.system.spawn import exit_code

if TYPE_CHECKING:
    from types import TracebackType

    from tinamou.blueprint import Plan
    from tinamou.control import Session
    from tinamou.guest.agent import Agent, Completed
    from tinamou.guest.ready import ReadyReport
    from tinamou.guest.resident import Line
    from tinamou.machine.forking import Wish
    from tinamou.snapshots.checkpoint import Checkpoint
    from tinamou.snapshots.fork import Woken

__all__ = ["AsyncMachine", "words_of"]

READY_SECONDS = 300.0
INPUT_BYTES = 512 << 10
"""Longer input for a command goes through the guest's agent, which is slower but takes more at once."""


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
        self._warm, self._wait = warm, wait
        if warm and not {"net", "nics"} & settings.keys():
            settings["net"] = []
        self.spec: MachineSpec = load_spec({"image": image, **settings})
        self.timeout = timeout
        self._keep = keep
        self._progress = progress
        self._record: Record | None = None
        self._plan: Plan | None = None
        self._session: Session | None = None
        self._agent: Agent | None = None
        self._line: Line | None = None
        self._ended: Callable[[], None] | None = None
        self._since = time.monotonic()

    @classmethod
    def attend(cls, started: Started, *, timeout: float = READY_SECONDS, since: float | None = None) -> Self:
        """A machine whose QEMU has been started already, at the ``time.monotonic()`` of ``since``."""
        machine = cls.__new__(cls)
        machine.__init__(started.record.spec.get("image", "tiny"), timeout=timeout)  # type: ignore[misc]
        machine._adopt(started)
        machine._since = machine._since if since is None else since
        return machine

    @classmethod
    def of(cls, spec: MachineSpec, **how: Any) -> Self:
        """A machine that will be what the spec describes; ``how`` are the other arguments of the class."""
        machine = cls.__new__(cls)
        machine.__init__(**how)  # type: ignore[misc]
        machine.spec = spec
        return machine

    @classmethod
    def woken(cls, woken: Woken, ended: Callable[[], None] | None = None) -> Self:
        """A fork that runs; ``ended`` is called once when it is over."""
        machine = cls.__new__(cls)
        machine.__init__(woken.record.spec.get("image", "tiny"))  # type: ignore[misc]
        machine.spec = load_spec(woken.record.spec)
        machine._adopt(Started(woken.record, woken.plan))
        machine._line = woken.line
        machine._ended = ended
        return machine

    def _adopt(self, started: Started) -> None:
        from tinamou.guest.agent import Agent

        record = started.record
        self._record, self._plan = record, started.plan
        self._keep = not record.ephemeral
        self._agent = Agent(str(record.file("agent.sock")))

    @property
    def record(self) -> Record:
        """Its entry in the state directory. Raises StateError before the start and after the end."""
        if self._record is None:
            raise StateError("the machine is not running", fix="enter it with a with-block, or call start()")
        return self._record

    @property
    def agent(self) -> Agent:
        """The guest's agent. Raises StateError before the start and after the end."""
        if self._agent is None:
            raise StateError("the machine is not running", fix="enter it with a with-block, or call start()")
        return self._agent

    @property
    def running(self) -> bool:
        """Whether it has been started, and its QEMU lives."""
        return self._record is not None and self._record.running

    @property
    def name(self) -> str:
        """The machine's name, which is its guest's hostname."""
        return self.record.name

    async def start(self) -> ReadyReport:
        """Start the machine and wait until its guest answers; returns the stages of the boot, timed."""
        import asyncio

        from tinamou.guest.ready import launched

        self._since = time.monotonic()
        if self._warm:
            return await self._start_warm()
        started = await asyncio.to_thread(
            begin, self.spec, ephemeral=not self._keep, dies_with_parent=True, progress=self._progress
        )
        self._adopt(started)
        try:
            if self._wait:
                return await self.ready()
            await self.session()
            return launched(self._since)
        except BaseException:
            await self.kill()
            raise

    async def _start_warm(self) -> ReadyReport:
        """Fork a machine that was booted once for this wish, or take one from a pool for the same wish."""
        from tinamou.guest.ready import woken as report
        from tinamou.machine.pooled import pooled_or_forked

        waking = pooled_or_forked(self.spec, keep=self._keep, timeout=self.timeout, progress=self._progress)
        woken, self._ended = await waking
        self._adopt(Started(woken.record, woken.plan))
        self._line = woken.line
        return report(self._since)

    async def ready(self, *, answer: bool = True) -> ReadyReport:
        """Wait until the guest answers. Raises GuestError saying how far it got and what it said last.

        With ``answer`` the first answer is enough; without, a command must have run.
        """
        from tinamou.guest.ready import wait_ready

        session = await self.session()
        _load_while_waiting()
        if self.record.resident and self._line is None:
            from tinamou.guest.resident import Line

            self._line = Line(str(self.record.file("resident.sock")))
        report = await wait_ready(
            self.record.directory,
            self.agent,
            line=self._line if self.record.resident else None,
            qmp=session,
            alive=lambda: self.record.running,
            exit_status=lambda: exit_code(self.record.pid),
            started=self._since,
            timeout=self.timeout,
            proof="answer" if answer else "run",
        )
        if self.spec.share and self._plan is not None:
            from tinamou.machine import shares

            await shares.attach(self.record, self._plan, session, lambda words: self.run(words, check=False))
        return report

    async def session(self) -> Session:
        """The QMP session of the process that attends the machine."""
        from tinamou.control import connect_qmp

        if self._session is None or self._session.closed:
            try:
                connecting = connect_qmp(
                    self.record.directory, owner=True, alive=lambda: self.record.running, timeout=self.timeout
                )
                self._session = await connecting
            except ControlError as error:
                if self._plan is None or not await _ended(self.record):
                    raise
                raise died(self._plan, self.record.file("."), self.record.pid) from error
        return self._session

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
        way = await self._quickest(len(input or b""))
        done = await way.run(words_of(command), input=input, environment=environment, timeout=timeout)
        if check and done.status:
            raise GuestError(
                f"the command ended with status {done.exit_status} in {self.name}: {command}",
                evidence={"it said": done.stderr.decode(errors="replace") or done.stdout.decode(errors="replace")},
                fix="pass check=False to get the status instead",
            )
        return done

    async def _quickest(self, input_bytes: int) -> Line | Agent:
        """A fork's resident, unless it is busy, or gone because the guest restarted; else the guest's agent."""
        from tinamou.guest.resident import LineError

        line = self._line
        if line is None or not line.free or input_bytes > INPUT_BYTES:
            return await self._settled_agent()
        try:
            if not line.fresh:
                await line.hello(timeout=5.0)
        except LineError:
            self._drop_line()
            return self.agent
        return line

    async def _settled_agent(self) -> Agent:
        """The guest's agent, once the guest is who it was told to be."""
        if self._line is not None and self._line.owes:
            await self._line.settle()
        return self.agent

    async def _held_line(self) -> Line | None:
        """The line to the resident, where there is one that answers."""
        await self._quickest(0)
        await self._settled_agent()
        return self._line

    def _drop_line(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    async def checkpoint(self, name: str = "", *, kind: Wish = "auto", fleeting: bool = False) -> Checkpoint:
        """Save the whole state of the machine, which goes on; a ``fleeting`` one is gone with this process.

        ``auto`` takes an instant one of a forkable machine, else a portable one; its ``why`` says the reason. Raises
        StateError for a state that cannot be saved so, ControlError and GuestError; the machine then runs on.
        """
        from tinamou.machine.forking import take_checkpoint

        held, session = await self._held_line(), await self.session()
        return await take_checkpoint(self.record, session, self.agent, name, line=held, kind=kind, fleeting=fleeting)

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

        wanted = 1 if count is None else count
        held = await self._held_line()
        session = await self.session()
        forks = await fork_running(type(self), self.record, session, self.agent, held, wanted, self._progress)
        return forks[0] if count is None else forks

    async def pause(self) -> None:
        """Freeze its virtual CPUs."""
        await (await self.session()).execute("stop")

    async def resume(self) -> None:
        """Let its virtual CPUs run on; a suspended machine is taken up where it was. Raises as `suspending.wake_up`."""
        from tinamou.machine.suspending import wake_up
        from tinamou.snapshots.remains import is_suspended

        if is_suspended(self.record):
            self._record = await wake_up(self.record, dies_with_parent=True)
        else:
            await (await self.session()).execute("cont")

    async def suspend(self) -> None:
        """Save a kept machine to disk and end its QEMU: `resume` takes it up, also after a restart of the host.

        Raises StateError for a throw-away machine and for one whose state cannot be saved, ControlError; it runs on then.
        """
        from tinamou.machine.suspending import suspend

        await suspend(self.record, await self.session())
        await self._hang_up()
        self._record = dataclasses.replace(self.record, pid=0, started=0, owner_pid=0, owner_started=0)

    async def reset(self) -> None:
        """Press the reset button, and wait until the guest answers again. Raises StateError where memory is encrypted."""
        encrypted.refuse_reset(self.record)
        self._drop_line()
        await (await self.session()).execute("system_reset")
        await self.ready()

    async def stop(self, *, grace: float = life.GRACE_SECONDS) -> None:
        """Ask the guest to shut down, cut the power after ``grace`` seconds; a throw-away machine is gone then."""
        import asyncio

        if self._record is not None and self.record.running:
            await life.shut_down(self.record, await self.session(), self.agent, grace=grace)
        await self._hang_up()
        await asyncio.to_thread(self._end)

    async def kill(self) -> None:
        """Cut the power; a throw-away machine is gone then."""
        import asyncio

        await self._hang_up()
        await asyncio.to_thread(self._end)

    async def release(self, *, stays: bool = False) -> None:
        """Leave the machine to itself: it runs on when this process ends; ``stays`` keeps even a throw-away one."""
        await self._hang_up()
        ephemeral = self.record.ephemeral and not stays
        self._record = dataclasses.replace(self.record, owner_pid=0, owner_started=0, ephemeral=ephemeral)
        write(self._record)

    async def _hang_up(self) -> None:
        """Close the lines to QEMU and the guest."""
        if self._agent is not None:
            await self._agent.close()
        if self._session is not None:
            await self._session.close()
        self._drop_line()

    def _end(self) -> None:
        if self._record is not None:
            end_machine(self._record)
        self._record, self._session, self._agent = None, None, None
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended()

    async def __aenter__(self) -> Self:
        if self._record is None:
            await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keep and kind is None:
            await self.stop()
        else:
            await self.kill()


async def _ended(record: Record) -> bool:
    """Whether its QEMU has ended; one on its way out has closed its sockets already and gets half a second to go."""
    import asyncio

    for _ in range(50):
        if not record.running:
            return True
        await asyncio.sleep(0.01)
    return False


def _load_while_waiting() -> None:
    """Load what the first command needs before the guest answers, not after."""
    import tinamou.guest.execute
    import tinamou.guest.resident  # noqa: F401
