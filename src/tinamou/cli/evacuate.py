"""The verb ``evacuate``: every machine that runs here to another host."""

from __future__ import annotations

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.cli.move import limit_of, line_of
from tinamou.errors import StateError


def command(
    host: str,
    /,
    *,
    limit: str = "",
    downtime: int = 300,
    slow: Switch = False,
    cut: Switch = False,
    line: str = "auto",
    json: Switch = False,
) -> int:
    """Move every machine that runs on this host to another one, one after another; those that cannot go stay, with a reason.

    `tinamou -H A evacuate B` empties A, which must know B. It ends with 118 where any stays.

    Parameters
    ----------
    limit
        Bytes a second that go over the line, 100M; no limit when left out.
    downtime
        Milliseconds each may stand still.
    slow
        Slow a guest down that writes to its memory faster than the line carries.
    cut
        Move also what has connections in another process of this host (passt); they end, and new ones are made there.
    line
        What carries them: auto, tls, ssh or packed, as for `tinamou move`.
    json
        What went, and what stays, as JSON.
    """
    from tinamou.fleet.evacuating import evacuate
    from tinamou.fleet.moving import How

    done = run_until_done(evacuate(host, How(limit_of(limit), downtime, slow, cut, line_of(line)), progress=output.progress))
    for moved in done.moved:
        for note in moved.notes:
            output.warn(f"{moved.name}: {note}")
        if not json:
            output.say(f"{moved.name} runs on {host}: stood still for {moved.downtime * 1000:.0f} ms")
    for name, why in done.stay.items():
        output.warn(f"{name} stays: {why}")
    if json:
        output.print_json({"moved": [late.asdict(one) for one in done.moved], "stay": dict(done.stay)})
    return StateError.code if done.stay else 0
