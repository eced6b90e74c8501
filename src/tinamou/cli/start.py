"""The verb ``start``: start a stopped machine again."""

from __future__ import annotations

from tinamou.cli import output
from tinamou.cli.loop import run_until_done
from tinamou.cli.running import started_only
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

    from tinamou.machine.booting import begun_again, until_up
    from tinamou.machine.connected import Connected

    async def start() -> None:
        started = await begun_again(machines.find(name))
        output.notes(started.plan.notes)
        machine = Connected(started.record, started.plan, timeout=timeout)
        try:
            await (until_up(machine) if started.record.agent else started_only(machine))
        except BaseException:
            await machine.end()
            raise
        await machine.release()

    run_until_done(start())
    print(name)
