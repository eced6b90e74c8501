"""The verb ``trace``: what a machine's QEMU does, event by event."""

from __future__ import annotations

from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.logs import show_log
from tinamou.cli.loop import run_until_done, run_until_told
from tinamou.errors import SpecError
from tinamou.operations import by_hand


def command(name: str, /, *events: str, list: Switch = False, json: Switch = False) -> int:
    """Print QEMU's trace events as they happen, until Ctrl-C or the machine's end; without EVENT, list those it has.

    Parameters
    ----------
    events
        Names of events; * stands for any characters: 'virtio_blk_*'.
    list
        Only list these, with whether they are told now.
    json
        The list as JSON.
    """
    if events and not list:
        if json:
            raise SpecError("--json would do nothing", fix="it goes with --list")
        return run_until_told(_follow(name, events))
    found = run_until_done(by_hand.trace_events(name, events))
    if json:
        output.print_json([{"name": one.name, "told": one.on} for one in found])
    else:
        output.lines(("NAME", "TOLD"), [(one.name, "yes" if one.on else "") for one in found])
    return 0


async def _follow(name: str, events: tuple[str, ...]) -> int:
    output.say("Ctrl-C ends it")
    await by_hand.trace(name, events, show_log)
    return 0
