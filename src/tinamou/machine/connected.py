"""One machine whose QEMU runs: its record, its plan, and the lines to its QEMU and its guest.

Everything that is done to running machines is a function over this.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from tinamou.control import Session, connect_qmp
from tinamou.control.bounds import CONNECT_SECONDS
from tinamou.errors import ControlError, GuestError
from tinamou.facts import files
from tinamou.guest.agent import Agent
from tinamou.guest.clock import set_clock
from tinamou.guest.resident import LineError, Sharing, connect
from tinamou.machine.reconcile import end_machine
from tinamou.state.record import Record, change, read
from tinamou.system.loop_thread import in_thread
from tinamou.system.spawn import exit_code

if TYPE_CHECKING:
    from tinamou.blueprint import Plan
    from tinamou.guest.agent import Agent, Completed
    from tinamou.guest.clock import Clock
    from tinamou.guest.command import Command, Hear, Input
    from tinamou.guest.ready import ReadyReport
    from tinamou.guest.resident import Line, RunningCommand
    from tinamou.snapshots.fork import Restored
    from tinamou.spec import MachineSpec

__all__ = ["READY_SECONDS", "Connected", "words_of"]

_MUCH = 1 << 20
"""Bytes of input from which on it is worth giving the guest what carries them quickly."""

READY_SECONDS = 300.0
"""How long a guest may take to answer, where nobody says otherwise."""


def words_of(command: str | Sequence[str]) -> list[str]:
    """A command as argument words; a string is given to the guest's shell."""
    return ["sh", "-c", command] if isinstance(command, str) else list(command)


class Connected:
    """A running machine and the lines to it, each opened when it is first used; ``async with`` closes them.

    With ``owner`` it holds QEMU's monitor for as long as it likes, as the process that owns the machine does; else it is a
    visitor, who asks a few things and leaves. ``line`` is the one to the guest's resident where it is open already: a
    machine has only one. ``timeout`` is how long the guest may take to answer, in seconds, ``since`` the
    ``time.monotonic()`` of its start. ``on_end`` is called once when the machine is over.
    """

    def __init__(
        self,
        record: Record,
        plan: Plan | None = None,
        *,
        owner: bool = True,
        line: Line | None = None,
        timeout: float = READY_SECONDS,
        since: float | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self.record: Record = record
        self.agent: Agent = Agent(str(record.file(files.AGENT)))
        self.timeout = timeout
        self._patience = (
            CONNECT_SECONDS if plan is None else max(timeout, CONNECT_SECONDS)
        )  # one that starts may have much memory to fill first
        self._plan = plan
        self._owner = owner
        self._line = line
        self.since: float = time.monotonic() if since is None else since
        self._on_end = on_end
        self._session: Session | None = None

    @classmethod
    def of_fork(cls, restored: Restored, on_end: Callable[[], None] | None = None) -> Self:
        """A fork that runs."""
        return cls(restored.record, restored.plan, line=restored.line, on_end=on_end)

    @classmethod
    def visiting(cls, record: Record) -> Self:
        """A machine another process owns, or nobody."""
        return cls(record, owner=False)

    @property
    def name(self) -> str:
        """The machine's name, which is its guest's hostname."""
        return self.record.name

    @property
    def spec(self) -> MachineSpec:
        """What the machine is, as its record has it."""
        from tinamou.spec import load_spec

        return load_spec(self.record.spec)

    @property
    def plan(self) -> Plan:
        """The plan it was started from. Raises StateError where that is not known."""
        if self._plan is None:
            from tinamou.state.folder import plan_of

            self._plan = plan_of(self.record)
        return self._plan

    @property
    def running(self) -> bool:
        """Whether its QEMU lives."""
        return self.record.running

    def refresh(self) -> Record:
        """The record as it is now, which other commands may have changed; the one that was known where it is gone."""
        self.record = read(self.record.path) or self.record
        return self.record

    async def session(self) -> Session:
        """The QMP session. Raises LaunchError for a QEMU that has ended, ControlError."""
        if self._session is None or self._session.closed:
            try:
                connecting = connect_qmp(
                    self.record.directory, owner=self._owner, alive=lambda: self.running, timeout=self._patience
                )
                self._session = await connecting
            except ControlError as error:
                if self._plan is None or not await _ended(self.record):
                    raise
                from tinamou.launch.process import died

                raise died(self._plan, self.record.path, self.record.pid) from error
        return self._session

    async def answers(self, *, answer: bool = True) -> ReadyReport:
        """Wait until the guest answers. Raises GuestError saying how far it got and what it said last.

        With ``answer`` the first answer is enough; without, a command must have run.
        """
        from tinamou.guest.ready import wait_ready

        session = await self.session()
        _load_while_waiting()
        if self.record.resident and self._line is None:
            self._line = connect(str(self.record.file(files.RESIDENT)))
        return await wait_ready(
            self.record.directory,
            self.agent,
            line=self._line if self.record.resident else None,
            qmp=session,
            alive=lambda: self.running,
            exit_status=lambda: exit_code(self.record.pid),
            started=self.since,
            timeout=self.timeout,
            proof="answer" if answer else "run",
            log_from=self.record.log_from,
        )

    def share(self) -> None:
        """Let other programs use the line to the guest's resident, for as long as it is held here."""
        if self._line is not None and self._line.free and not self._line.borrowed and self._line.on_end is None:
            Sharing(self._line, str(self.record.file(files.RESIDENT)))

    async def run(
        self,
        command: str | Sequence[str],
        *,
        input: Input = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        timeout: float | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a command in the guest: a string in its shell, a list of words as it is; see `AsyncMachine.run`.

        Raises GuestError when it ends with a status other than 0, unless ``check`` is false.
        """
        small = input is None or (isinstance(input, bytes) and len(input) < _MUCH)
        way = await (self._quickest() if small else self._carrying())
        done = await way.run(words_of(command), input=input, env=env, cwd=cwd, user=user, timeout=timeout)
        if check and done.status:
            raise GuestError(
                f"the command ended with status {done.exit_status} in {self.name}: {command}",
                evidence={"it said": done.stderr.decode(errors="replace") or done.stdout.decode(errors="replace")},
                fix="pass check=False to get the status instead",
            )
        return done

    async def stream(
        self,
        command: str | Sequence[str],
        out: Hear,
        err: Hear,
        *,
        input: Input = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        timeout: float | None = None,
    ) -> int:
        """As `run`, but the output is heard while it runs, without limit; returns the exit status."""
        way = await self._carrying()
        how: dict[str, Any] = {"input": input, "env": env, "cwd": cwd, "user": user, "timeout": timeout}
        return (await way.stream(words_of(command), out, err, **how)).exit_status

    async def terminal(self, command: Command, size: tuple[int, int]) -> RunningCommand:
        """A command at a terminal of its own, of so many columns and rows. Raises GuestError, SpecError.

        A guest that does not bring the program that makes terminals is given it.
        """
        return await (await self.talking()).open(command, size)

    async def talking(self) -> Line:
        """The line to the guest's resident, once that answers; a guest without one is given it. Raises GuestError."""
        from tinamou.guest.resident.install import install

        if self._line is not None and not self._line.free:
            self.drop_line()
        line = await self.held_line()
        path = str(self.record.file(files.RESIDENT))
        if line is None and self.record.resident:
            line = self._line = await in_thread(connect, path)
            await line.hello(self.timeout)
        elif line is None:
            line = self._line = await install(self.agent, path, self.record.arch)
        return line

    async def _carrying(self) -> Line | Agent:
        """What carries much data: the line to the resident, which the guest is given, or the agent where it cannot be."""
        with contextlib.suppress(GuestError, OSError):
            if self._line is not None or not await self.agent.is_windows():
                return await self.talking()
        return await self._quickest()

    async def _quickest(self) -> Line | Agent:
        """The guest's resident, unless it is gone because the guest restarted; else the guest's agent."""
        line = self._line
        if line is None or not line.free:
            return await self.settled_agent()
        try:
            if not line.fresh:
                await line.hello(timeout=5.0)
        except LineError:
            self.drop_line()
            return self.agent
        return line

    async def settled_agent(self) -> Agent:
        """The guest's agent, once the guest is who it was told to be."""
        if self._line is not None and self._line.owes:
            await self._line.settle()
        return self.agent

    async def held_line(self) -> Line | None:
        """The line to the resident, where one is held that answers."""
        await self._quickest()
        await self.settled_agent()
        return self._line

    async def set_clock(self) -> Clock:
        """Set its guest's clock, which stood still with it; what became of that."""
        line = self._line if self._line is not None and self._line.free else None
        return await set_clock(self.record, await self.session(), line=line, agent=self.agent)

    def drop_line(self) -> None:
        """Hang up on the resident, which is gone with a restart of the guest."""
        if self._line is not None:
            self._line.close()
            self._line = None

    async def hang_up(self) -> None:
        """Close the lines to QEMU and the guest's agent; the one to its resident stays."""
        await self.agent.close()
        if self._session is not None:
            await self._session.close()

    async def close(self) -> None:
        """Close the lines to QEMU and the guest; the machine goes on."""
        await self.hang_up()
        self.drop_line()

    async def anew(self) -> None:
        """Another QEMU has taken the machine over: its monitor, and where one was held the line to its resident, once more.

        What the resident is told while it still looks at the line that ended is lost, so it is greeted until it answers.
        """
        had_line = self._line is not None
        await self.close()
        self.refresh()
        if had_line and self.record.resident:
            line = connect(str(self.record.file(files.RESIDENT)))
            try:
                await line.hello()
            except LineError:
                line.close()
            else:
                self._line = line

    async def release(self, *, stays: bool = False) -> None:
        """Leave the machine to itself: it runs on when this process ends; ``stays`` keeps even a throw-away one."""
        await self.settled_agent()
        await self.close()
        kept = {"ephemeral": False} if stays else {}
        self.record = change(self.record, owner_pid=0, owner_started=0, **kept)

    async def end(self) -> None:
        """Cut the power; a throw-away machine is gone then."""
        await self.close()
        await in_thread(self.ended)

    def ended(self) -> None:
        """Give everything back that the machine had."""
        end_machine(self.record)
        if self._on_end is not None:
            told, self._on_end = self._on_end, None
            told()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _ended(record: Record) -> bool:
    """Whether its QEMU has ended; one on its way out has closed its sockets already and gets half a second to go."""
    for _ in range(50):
        if not record.running:
            return True
        await asyncio.sleep(0.01)
    return False


def _load_while_waiting() -> None:
    """Load what the first command needs before the guest answers, not after."""
    import tinamou.guest.execute
    import tinamou.guest.resident  # noqa: F401
