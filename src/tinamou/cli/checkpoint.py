"""The verb ``checkpoint``: save the whole state of a running machine."""

from __future__ import annotations

from typing import Literal

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done


def command(
    name: str,
    checkpoint: str = "",
    /,
    *,
    kind: Literal["auto", "instant", "portable"] = "auto",
    json: Switch = False,
) -> None:
    """Save the whole state of a running machine, which goes on: memory, devices, disks.

    Parameters
    ----------
    checkpoint
        The checkpoint's name; one of its own when left out.
    kind
        instant: in milliseconds, of forkable machines, gone when the host restarts; portable: of any machine, compressed,
        for another host; auto: instant where the machine allows it.
    """
    from tinamou.operations import states

    taken = run_until_done(states.checkpoint(name, checkpoint, kind=kind, progress=output.progress))
    if json:
        output.print_json({**late.asdict(taken), "plan": None, "record": None})
        return
    output.say(f"{taken.kind} checkpoint, as {taken.why}")
    stored = "" if taken.ram else f" in {taken.state.size >> 20} MiB"
    output.say(f"{taken.memory >> 20} MiB of memory{stored}; {name} stood still for {taken.pause * 1000:.0f} ms")
    print(taken.name)
