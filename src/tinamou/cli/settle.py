"""The verb ``settle``: whose a machine is whose move was cut short."""

from __future__ import annotations

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done


def command(name: str, /, *, ask: str = "", other_is_off: Switch = False, json: Switch = False) -> None:
    """Decide whose a machine is whose move was cut short, by what the other host says; it runs on there or here.

    It is for a machine that is `arriving` and whose source is not heard any more, and for one that stayed here and may be
    ready on the host to which it was to move.

    Parameters
    ----------
    ask
        The other host as `tinamou host ls` has it, where it calls itself otherwise.
    other_is_off
        The other host does not answer, and will never run the machine: it is off for good, or was fenced. Where that is
        not so, there may be two of it.
    json
        Where it is now, as JSON.
    """
    from tinamou.fleet.settling import settle

    settled = run_until_done(settle(name, ask=ask, other_is_off=other_is_off))
    output.warn(*settled.notes)
    if json:
        output.print_json(late.asdict(settled))
    else:
        where = f"on {settled.host}" if settled.host else "here"
        output.say(f"{name} is {where}{'' if settled.running else ', and off'}")
