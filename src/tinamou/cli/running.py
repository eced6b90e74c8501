"""What ``tinamou run`` does: start, attend, run the command or hold the console, and leave nothing behind."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from tinamou.cli import output
from tinamou.cli.loop import run_until_done
from tinamou.cli.streams import Given, given_input, hearing
from tinamou.errors import Problem, SpecError, TimeLimitError
from tinamou.late import dataclass, field
from tinamou.machine.reconcile import end_machine
from tinamou.machine.starting import Started, begin
from tinamou.system.closing import IfFailed

if TYPE_CHECKING:
    from tinamou.guest.command import Command
    from tinamou.guest.ready import ReadyReport
    from tinamou.machine.connected import Connected
    from tinamou.operations.machines import Launched
    from tinamou.spec import MachineSpec
    from tinamou.state.record import Record

__all__ = ["How", "run", "say_what_waits", "see_through"]


@dataclass(frozen=True)
class How:
    """The options of a run: seconds the guest may take to answer and its command to end, and what is printed."""

    timeout: float = 300.0
    time_limit: float | None = None
    detach: bool = False
    timings: bool = False
    wait: bool = True
    json: bool = False
    given: Given = field(default_factory=Given)


def run(spec: MachineSpec, words: list[str] | None, how: How, *, warm: bool = False) -> int:
    """Start the machine and see it through; returns the exit status. Raises SpecError for options that do nothing."""
    _refuse_idle(words, how, warm=warm)
    if spec.seed.agent == "none" and (words is not None or warm):
        fix = "leave one of the two out; tinamou ssh NAME -- COMMAND needs no agent"
        raise SpecError("a command needs the guest's agent, and there shall be none (seed.agent = none)", fix=fix)
    if warm:
        gc.enable()
        return _warm(spec, words, how)
    if how.detach and words is None:
        return _launch(spec, how)
    started = begin(spec, ephemeral=not how.detach, dies_with_parent=not how.detach, progress=output.progress)
    with IfFailed(end_machine, started.record):
        since = time.monotonic() - started.record.timings.get("launch", 0.0)
        gc.enable()
        output.end_progress()
        output.notes(started.plan.notes)
        return _attend(started, words, since, how)


def _refuse_idle(words: list[str] | None, how: How, *, warm: bool) -> None:
    """Raises SpecError, with every problem, for options that would change nothing."""
    idle = {
        "--no-wait": not how.wait and (words is not None or warm),
        "--json": how.json and not (how.detach and words is None),
        "--time-limit": how.time_limit is not None and words is None,
        **dict.fromkeys(how.given.named(), words is None),
        "--timeout": how.timeout != How.timeout and not how.wait,
    }
    why = {
        "--no-wait": ("a command, and a copy of a booted machine, need the guest", "leave it out"),
        "--json": ("what is printed is the guest's", "add --detach, without a command"),
        "--time-limit": ("it is the time a command may take", "name the command: -- COMMAND"),
        **dict.fromkeys(how.given.named(), ("it is about a command", "name the command: -- COMMAND")),
        "--timeout": ("the guest is not waited for", "leave it, or --no-wait, out"),
    }
    if problems := [Problem(option, None, *why[option]) for option, useless in idle.items() if useless]:
        raise SpecError("these options do not go together", problems=problems)


def _launch(spec: MachineSpec, how: How) -> int:
    """A machine that stays: started, and left running."""
    from tinamou.operations import machines

    gc.enable()
    launched = run_until_done(machines.launch(spec, wait=how.wait, timeout=how.timeout, progress=output.progress))
    output.notes(launched.notes)
    say_what_waits(launched, wait=how.wait)
    _announce(launched.record, how.json)
    if how.timings:
        _print_timings(launched.record, [launched.report])
    return 0


def say_what_waits(launched: Launched, *, wait: bool) -> None:
    """A loud line for a machine whose guest has not answered, where that was waited for."""
    name = launched.record.name
    if launched.waits and wait:
        output.warn(
            f"{name} runs, and its guest has not answered: {launched.waits}. It goes on: tinamou console {name} shows "
            f"how it gets on, tinamou exec {name} waits for it"
        )


def _attend(started: Started, words: list[str] | None, since: float, how: How) -> int:
    from tinamou.machine.booting import until_launched, until_up
    from tinamou.machine.connected import Connected

    machine = Connected(started.record, started.plan, timeout=how.timeout, since=since)
    reports: list[ReadyReport] = []

    waits = words is not None or (how.wait and started.record.agent)
    if started.record.has("share") and not waits:
        from tinamou.machine import shares

        output.notes(shares.by_hand(machine.spec))

    async def answered() -> None:
        if waits:
            reports.append(await until_up(machine))
        else:
            reports.append(await until_launched(machine))

    status = run_until_done(see_through(machine, answered, words, how))
    if how.timings:
        _print_timings(started.record, reports)
    return status


def _warm(spec: MachineSpec, words: list[str] | None, how: How) -> int:
    from tinamou.machine.acquire import pooled_or_forked
    from tinamou.machine.connected import Connected

    async def whole() -> int:
        began = time.monotonic()
        taken = await pooled_or_forked(spec, keep=how.detach, timeout=how.timeout, progress=output.progress)
        output.end_progress()
        output.warn(*taken[0].record.notes)
        if how.timings:
            print(f"{'fork':>10} {(time.monotonic() - began) * 1000:8.1f} ms", file=sys.stderr)
        return await see_through(Connected.of_fork(*taken), None, words, how)

    return run_until_done(whole())


async def see_through(
    machine: Connected, answered: Callable[[], Coroutine[Any, Any, None]] | None, words: list[str] | None, how: How
) -> int:
    """Wait for the guest, do in it what was asked, and end the machine unless it is to stay and all went well."""
    try:
        if words is None and not how.detach and sys.stdin is not None and sys.stdin.isatty() and machine.running:
            return await _console(machine, answered)
        if answered is not None:
            await answered()
        if not how.detach:
            machine.share()
        if how.detach and words is None:
            await machine.release()
            _announce(machine.record, how.json)
            return 0
        status = await _in_guest(machine, words, how)
        if how.detach:
            await machine.release()
        return status
    except BaseException:
        await machine.end()
        raise
    finally:
        if not how.detach:
            await machine.end()


async def _in_guest(machine: Connected, words: list[str] | None, how: How) -> int:
    if words is None:
        return await _console(machine)
    what = how.given.command(words or ["true"])
    if how.given.tty:
        return await _within(how.time_limit, machine, _at_terminal(machine, what))
    out, err = hearing()
    data = given_input(words, f"tinamou run -it -- {words[0]}" if words else "", typed=how.given.interactive)
    options: dict[str, Any] = {"input": data, "env": what.env, "cwd": what.cwd, "user": what.user}
    return await _within(how.time_limit, machine, machine.stream(what.argv, out, err, **options))


async def _at_terminal(machine: Connected, what: Command) -> int:
    from tinamou.guest.terminal import hold, size

    return await hold(await machine.terminal(what, size()))


async def _within(seconds: float | None, machine: Connected, command: Coroutine[Any, Any, int]) -> int:
    """The command's status at its end. When its time is up the machine's power is cut; the guest is not asked.

    Raises TimeLimitError.
    """
    import asyncio

    from tinamou.system.loop_thread import dropped

    running = asyncio.ensure_future(command)
    try:
        done, _ = await asyncio.wait([running], timeout=seconds)
        if done:
            return running.result()
        await machine.end()
    finally:
        await dropped(running, 1.0)
    raise TimeLimitError(f"the command did not end within {seconds:g} s", why="its machine was ended")


async def _console(machine: Connected, boot: Callable[[], Coroutine[Any, Any, None]] | None = None) -> int:
    """The console, at a terminal from the first message of the boot on."""
    from tinamou.guest.console import attach

    return await attach(machine.record.directory, stays=not machine.record.ephemeral, boot=boot() if boot else None)


def _announce(record: Record, json: bool) -> None:
    from tinamou.machine.listing import described

    if json:
        output.print_json(described(record))
    else:
        print(record.name)


def _print_timings(record: Record, reports: list[ReadyReport]) -> None:
    for stage, seconds in record.timings.items():
        print(f"{stage:>10} {seconds * 1000:8.1f} ms", file=sys.stderr)
    for milestone in (milestone for report in reports for milestone in report.milestones):
        print(f"{milestone.stage.name.lower():>10} {milestone.at * 1000:8.1f} ms after QEMU's start", file=sys.stderr)
