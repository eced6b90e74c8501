"""The verb ``start``: start a stopped machine again."""

from __future__ import annotations

from tinamou.cli import output
from tinamou.cli.loop import run_until_done
from tinamou.cli.running import started_only
from tinamou.machine.attended import AsyncMachine
from tinamou.machine.starting import begin_again
from tinamou.state import machines


def command(name: str, /, *, timeout: float = 300.0) -> None:
    """Start a stopped machine in the background.

    Parameters
    ----------
    name
        The machine.
    timeout
        Seconds the guest may take to answer.
    """

    started = begin_again(machines.find(name))
    output.notes(started.plan.notes)

    async def attend() -> None:
        machine = AsyncMachine.attend(started, timeout=timeout)
        try:
            await (machine.ready() if started.record.agent else started_only(machine))
        except BaseException:
            await machine.kill()
            raise
        await machine.release()

    run_until_done(attend())
    print(name)
