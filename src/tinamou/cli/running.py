"""What ``tinamou run`` does: start, attend, run the command or hold the console, and leave nothing behind."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinamou.cli import output
from tinamou.cli.loop import run_until_done
from tinamou.machine.starting import Started, begin

if TYPE_CHECKING:
    from tinamou.guest.agent import Completed
    from tinamou.guest.ready import ReadyReport
    from tinamou.machine.connected import Connected
    from tinamou.spec import MachineSpec

__all__ = ["How", "print_output", "run", "see_through", "started_only"]


@dataclass(frozen=True)
class How:
    """The options of a run: seconds the guest may take to answer and its command to end, and what is printed."""

    timeout: float = 300.0
    time_limit: float | None = None
    detach: bool = False
    timings: bool = False
    json: bool = False


def run(spec: MachineSpec, words: list[str] | None, how: How, *, warm: bool = False) -> int:
    """Start the machine and see it through; returns the exit status."""
    if warm:
        gc.enable()
        return _warm(spec, words, how)
    started = begin(spec, ephemeral=not how.detach, dies_with_parent=not how.detach, progress=output.progress)
    since = time.monotonic() - sum(started.record.timings.get(stage, 0.0) for stage in ("launch",))
    gc.enable()
    output.end_progress()
    output.notes(started.plan.notes)
    return _attend(started, words, since, how)


def _attend(started: Started, words: list[str] | None, since: float, how: How) -> int:
    from tinamou.machine.booting import until_up
    from tinamou.machine.connected import Connected

    machine = Connected(started.record, started.plan, timeout=how.timeout, since=since)
    reports: list[ReadyReport] = []

    async def answered() -> None:
        if words is not None or started.record.agent:
            reports.append(await until_up(machine))
        elif how.detach:
            await started_only(machine)

    status = run_until_done(see_through(machine, answered(), words, how))
    if how.timings:
        _print_timings(started, reports)
    return status


def _warm(spec: MachineSpec, words: list[str] | None, how: How) -> int:
    from tinamou.machine.acquire import pooled_or_forked
    from tinamou.machine.connected import Connected

    async def whole() -> int:
        began = time.monotonic()
        taken = await pooled_or_forked(spec, keep=how.detach, timeout=how.timeout, progress=output.progress)
        output.end_progress()
        if how.timings:
            print(f"{'fork':>10} {(time.monotonic() - began) * 1000:8.1f} ms", file=sys.stderr)
        return await see_through(Connected.of_fork(*taken), None, words, how)

    return run_until_done(whole())


async def see_through(
    machine: Connected, answered: Coroutine[Any, Any, None] | None, words: list[str] | None, how: How
) -> int:
    """Wait for the guest, do in it what was asked, and end the machine unless it is to stay and all went well."""
    try:
        if words is None and not how.detach and sys.stdin is not None and sys.stdin.isatty() and machine.running:
            return await _console(machine, answered)
        if answered is not None:
            await answered
        if how.detach and words is None:
            await machine.release()
            _announce(machine, how.json)
            return 0
        return await _in_guest(machine, words, how.time_limit)
    except BaseException:
        await machine.end()
        raise
    finally:
        if not how.detach:
            await machine.end()


async def _in_guest(machine: Connected, words: list[str] | None, time_limit: float | None) -> int:
    if words is None:
        return await _console(machine)
    data = None if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
    return print_output(await _within(time_limit, machine, machine.run(words or ["true"], input=data, check=False)))


async def _within(seconds: float | None, machine: Connected, command: Coroutine[Any, Any, Completed]) -> Completed:
    """The finished command. When its time is up the machine's power is cut: a guest is not asked to kill its command.

    Raises TimeLimitError.
    """
    import asyncio

    from tinamou.errors import TimeLimitError

    running = asyncio.ensure_future(command)
    try:
        done, _ = await asyncio.wait([running], timeout=seconds)
        if done:
            return running.result()
        await machine.end()
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=1.0)
        if running.done() and not running.cancelled():
            running.exception()  # it is over; nobody asks for it any more
    raise TimeLimitError(f"the command did not end within {seconds:g} s", why="its machine was ended")


async def _console(machine: Connected, boot: Coroutine[Any, Any, None] | None = None) -> int:
    """The console, at a terminal from the first message of the boot on."""
    from tinamou.guest.console import attach

    return await attach(machine.record.directory, stays=not machine.record.ephemeral, boot=boot)


def print_output(done: Completed) -> int:
    """What a command in the guest printed, on the same streams here; returns its exit status."""
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(done.stderr)
    sys.stderr.buffer.flush()
    if done.truncated:
        output.warn("the command printed more than 16 MiB; the rest was dropped by the guest's agent")
    return done.exit_status


def _announce(machine: Connected, json: bool) -> None:
    from tinamou.cli.show import described

    if json:
        output.print_json(described(machine.record))
    else:
        print(machine.name)


async def started_only(machine: Connected) -> None:
    """All that can be waited for where nobody knows whether the guest has an agent: that QEMU runs. Raises LaunchError."""
    from tinamou.machine.booting import until_launched

    await until_launched(machine)
    image, name = machine.record.image, machine.name
    output.warn(
        f"{name} runs; whether its guest will answer is not known, as nothing is known of a guest agent in {image}: "
        f"tinamou console {name} shows how it gets on"
    )


def _print_timings(started: Started, reports: list[ReadyReport]) -> None:
    for stage, seconds in started.record.timings.items():
        print(f"{stage:>10} {seconds * 1000:8.1f} ms", file=sys.stderr)
    for milestone in (milestone for report in reports for milestone in report.milestones):
        print(f"{milestone.stage.name.lower():>10} {milestone.at * 1000:8.1f} ms after QEMU's start", file=sys.stderr)
