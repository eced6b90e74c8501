"""Waiting until a guest answers, with the stages of its boot timed, or saying at once why it never will."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tinamou.control.commands import firmware_log
from tinamou.control.session import DisconnectedError, Session
from tinamou.facts import files
from tinamou.guest.channel import AgentSilentError
from tinamou.guest.diagnose import Stage, clean, diagnose, reached
from tinamou.guest.failure import PANIC, NotReadyError, not_ready, tail
from tinamou.guest.resident.line import LineError
from tinamou.late import dataclass, field
from tinamou.system.logs import Followed

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent
    from tinamou.guest.resident import Line

__all__ = ["SETTLED", "Milestone", "NotReadyError", "ReadyReport", "launched", "restored", "wait_ready"]

SETTLED = """
tries=0
while [ -e /lib/tinamou/later ] && [ ! -e /run/settled ] && [ $tries -lt 100 ]; do
    tries=$((tries + 1)); sleep 0.1
done"""
"""Lines for a guest's shell: return when the tiny guest, which answers before its network is up, has done all of its boot;
after 10 s in any case, at once in other guests."""

_WINDOW = 16 << 10
_LOOK_OFTEN, _LOOK_SELDOM, _OFTEN_FOR = 0.02, 0.1, 5.0
_TOO_MANY_RESETS = 4
_SILENT = (AgentSilentError, LineError)
_FIRMWARE_SECONDS, _TOO_MANY_ATTEMPTS = 0.4, 500
"""Resets that follow each other faster than this are SeaBIOS restarting the machine until it gets hold of it, which it may
do dozens of times where a reset takes QEMU long because it restores a large kernel (docs/reference/boot-speed.md)."""

Proof = Literal["run", "answer", "none"]


@dataclass(frozen=True)
class Milestone:
    """A stage, and when it was first seen, in seconds since the machine was started."""

    stage: Stage
    at: float


@dataclass(frozen=True)
class ReadyReport:
    """The stages in order, and the ``proof``.

    ``run``: a command ran in the guest; ``answer``: its agent answered; ``none``: nobody asked.
    """

    milestones: tuple[Milestone, ...]
    proof: Proof

    @property
    def seconds(self) -> float:
        """From the start of the machine to the guest's first answer."""
        return self.milestones[-1].at


def launched(since: float) -> ReadyReport:
    """The report of a machine whose guest nobody waits for; ``since`` is the ``time.monotonic()`` of its start."""
    return ReadyReport((Milestone(Stage.QEMU, time.monotonic() - since),), "none")


def restored(since: float) -> ReadyReport:
    """The report of a machine that answered a command when it was restored; ``since`` as for `launched`."""
    return ReadyReport((Milestone(Stage.READY, time.monotonic() - since),), "run")


@dataclass
class _Boot:
    """What is known so far about one boot."""

    directory: str
    started: float
    qmp: Session | None
    alive: Callable[[], bool]
    log_from: int = 0
    milestones: list[Milestone] = field(default_factory=list)
    window: bytes = b""
    resets: int = 0
    attempts: int = 0
    reset_at: float = 0.0
    seen: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log = Followed(Path(self.directory, files.SERIAL_LOG), self.log_from)

    @property
    def stage(self) -> Stage:
        return self.milestones[-1].stage if self.milestones else Stage.QEMU

    def reach(self, stage: Stage) -> None:
        if not self.milestones or stage > self.stage:
            self.milestones.append(Milestone(stage, time.monotonic() - self.started))

    def read(self) -> bool:
        """Take in what the serial log gained; whether it gained anything."""
        fresh = self.log.more(_WINDOW)
        if fresh:
            self.window = (self.window + fresh)[-_WINDOW:]
            self.reach(reached(clean(self.window)))
        return bool(fresh)

    def restarts(self, at: float) -> bool:
        """Take note of a reset at a time in seconds; whether there have been too many."""
        self.attempts += 1
        self.resets += at - self.reset_at > _FIRMWARE_SECONDS
        self.reset_at = at
        return self.resets >= _TOO_MANY_RESETS or self.attempts >= _TOO_MANY_ATTEMPTS

    def hopeless(self) -> bool:
        """Whether a fatal finding has outlived its grace."""
        now = time.monotonic()
        fatal = [finding for finding in diagnose(clean(self.window), self.stage) if finding.fatal]
        overdue = [now - self.seen.setdefault(finding.kind, now) - finding.grace for finding in fatal]
        return bool(overdue) and max(overdue) >= 0


async def wait_ready(
    directory: str,
    agent: Agent,
    *,
    line: Line | None = None,
    qmp: Session | None = None,
    alive: Callable[[], bool] = lambda: True,
    exit_status: Callable[[], int | None] = lambda: None,
    started: float | None = None,
    timeout: float = 120.0,
    proof: Proof = "run",
    log_from: int = 0,
) -> ReadyReport:
    """Wait until the guest answers. Raises NotReadyError: at once when QEMU or the guest died, or after ``timeout`` seconds.

    ``directory`` holds ``serial.log`` and ``qemu.log``; ``started`` is the ``time.monotonic()`` of QEMU's start. Call it
    before the guest boots: a question is put on the agent's line at once, and waits there for the agent. With ``proof``
    ``answer`` that question is all; with ``run`` a command must have run too, unless the guest's agent may not run any
    (the report then says ``answer``). ``line`` leads to the resident of a guest that brings one: it answers in the agent's
    place. ``log_from`` is the byte of the serial log with which this boot begins.
    """
    boot = _Boot(directory, time.monotonic() if started is None else started, qmp, alive, log_from)
    boot.reach(Stage.QEMU)
    answering = asyncio.create_task(_answer(boot, agent, line, timeout, proof))
    watching = [asyncio.create_task(_watch_log(boot))]
    if qmp is not None:
        watching.append(asyncio.create_task(_watch_events(boot, qmp)))
    tasks = [answering, *watching]
    try:
        async with asyncio.timeout(timeout):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if answering.done() and isinstance(answering.exception(), _SILENT):
                await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED, timeout=1.0)
    except TimeoutError:
        pass
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    stuck = boot.stage <= Stage.FIRMWARE and (answering.cancelled() or answering.exception() is not None)
    firmware = await firmware_log(qmp) if qmp is not None and stuck and boot.alive() else b""
    return _conclude(boot, answering, watching, exit_status, timeout, firmware)


def _conclude(
    boot: _Boot,
    answering: asyncio.Task[Proof],
    watching: list[asyncio.Task[str]],
    exit_status: Callable[[], int | None],
    timeout: float,
    firmware: bytes,
) -> ReadyReport:
    if not answering.cancelled() and answering.exception() is None:
        boot.reach(Stage.READY)
        return ReadyReport(tuple(boot.milestones), answering.result())
    reasons = [task.result() for task in watching if not task.cancelled()]
    if not answering.cancelled() and not reasons and not isinstance(error := answering.exception(), _SILENT):
        assert error is not None
        raise error
    boot.read()
    ended = not boot.alive()
    raise not_ready(
        boot.directory,
        boot.stage,
        reason=reasons[0] if reasons else f"it did not answer within {timeout:g} s",
        at={milestone.stage: milestone.at for milestone in boot.milestones},
        exit_status=exit_status() if ended else None,
        ended=ended,
        late=not ended and not reasons,
        firmware=firmware,
    )


async def _answer(boot: _Boot, agent: Agent, line: Line | None, timeout: float, proof: Proof) -> Proof:
    if line is not None:
        await line.hello(timeout)
        boot.reach(Stage.AGENT)
        if proof == "run":
            await line.run(["true"])
        return proof
    await agent.wait(timeout)
    boot.reach(Stage.AGENT)
    if proof == "run":
        from tinamou.guest.execute import may_run

        return "run" if await may_run(agent) else "answer"
    return "answer"


async def _watch_log(boot: _Boot) -> str:
    """Follow the serial log and the process until one of them says that it is over; empty when it is the log."""
    while True:
        alive = boot.alive()
        boot.read()
        if not alive:
            return "QEMU ended"
        if boot.hopeless():
            return ""
        young = time.monotonic() - boot.started < _OFTEN_FOR
        await asyncio.sleep(_LOOK_OFTEN if young else _LOOK_SELDOM)


async def _watch_events(boot: _Boot, qmp: Session) -> str:
    """Follow QEMU's events until one says that it is over."""
    with qmp.listen() as events:
        for event in (*qmp.recent, None):
            if event is not None and event.name == "GUEST_PANICKED":
                return "the guest's kernel panicked"
        while True:
            try:
                event = await events.next()
            except DisconnectedError as error:
                await _until(lambda: not boot.alive(), 1.0)
                return f"{error.what}: {error.why}" if boot.alive() else "QEMU ended"
            match event.name:
                case "GUEST_PANICKED":
                    await asyncio.sleep(0.3)  # it goes on to say more
                    await _until(lambda: PANIC in tail(f"{boot.directory}/{files.SERIAL_LOG}"), 3.0)
                    return "the guest's kernel panicked"
                case "VSERPORT_CHANGE" if event.data.get("open"):
                    boot.reach(Stage.AGENT)
                case "RESET" if event.data.get("guest"):
                    if boot.restarts(event.at):
                        return f"it restarted {boot.attempts} times without ever answering"
                case "SHUTDOWN":
                    await _until(lambda: not boot.alive(), 1.0)
                    return f"the machine was shut down ({event.data.get('reason', 'for an unknown reason')})"
                case _:
                    pass


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
