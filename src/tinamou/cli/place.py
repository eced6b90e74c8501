"""The verb ``place``: on which host a machine belongs, and why not on the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import HostError, PlanError, SpecError, TinamouError

if TYPE_CHECKING:
    from tinamou.fleet.placement import Room, Verdict

_HERE = "here"
_COLUMNS = ("host", "fits", "why")


def command(
    file: str,
    /,
    *,
    host: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    tree: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    explain: Switch = False,
    json: Switch = False,
) -> None:
    """Print the host on which a machine belongs: where there is room, its rules hold, and least is left that nobody can use.

    Nothing is started. The hosts are this one and all that are known; one that is silent is not chosen.

    Parameters
    ----------
    file
        The machine file; its table [placement] has the rules.
    host
        Only these of the hosts: names of tinamou host ls, here for this one. May be repeated.
    tree
        Recorded hosts instead: folders with their /proc and /sys. May be repeated.
    explain
        What is to be said of each host.
    """
    from tinamou.cli.described import described
    from tinamou.fleet import placement

    if host and tree:
        raise SpecError("--host would do nothing", why="only recorded hosts are looked at", fix="leave --tree or --host out")
    need = placement.need_of(described(file, {}))
    rooms, silent = _rooms(host, tree)
    found = [*placement.verdicts(need, rooms), *silent]
    chosen = next((one.host for one in found if one.fit), None)
    if json:
        output.print_json({"host": chosen, "need": late.asdict(need), "hosts": [late.asdict(one) for one in found]})
    elif explain:
        output.lines(_COLUMNS, [(one.host, "yes" if one.fit else "no", one.why) for one in found])
    elif chosen:
        print(chosen)
    for one in silent:
        output.warn(one.why)
    if chosen is None:
        evidence = {one.host: one.why for one in found}
        raise PlanError(
            "no host has room for this machine", evidence=evidence, fix="ask for less, or tinamou host add another"
        )


def _rooms(names: tuple[str, ...], trees: tuple[str, ...]) -> tuple[list[Room], list[Verdict]]:
    """What each host has left, and what is to be said of those that do not tell."""
    from tinamou.fleet import hosts, room
    from tinamou.fleet.asking import ask_all
    from tinamou.fleet.placement import Verdict

    if trees:
        return [room.recorded(Path(one)) for one in trees], []
    others = [hosts.find(one) for one in names if one != _HERE] if names else hosts.every()
    rooms = [room.this_room(_HERE)] if _HERE in names or not names else []
    silent = []
    for answer in run_until_done(ask_all(others, ["host", "room"])):
        try:
            if answer.error:
                raise answer.error
            rooms.append(room.told(answer.host, answer.data))
        except TinamouError as error:
            why = answer.why or (f"{error.what}: {error.why}" if isinstance(error, HostError) else str(error))
            silent.append(Verdict(answer.host, None, (), f"silent: {why}"))
    return rooms, silent
