"""The verbs below ``token``: create, ls, revoke."""

from __future__ import annotations

import time
from typing import Annotated

from tinamou.cli import output
from tinamou.cli.grammar import Group, Parameter, Switch
from tinamou.errors import Problem, SpecError
from tinamou.state import tokens

app: Group = Group()

_UNITS = {"m": 60, "h": 3600, "d": 86400}


@app.command
def create(
    name: str,
    /,
    *,
    verb: Annotated[tuple[str, ...], Parameter(negative="")],
    machine: Annotated[tuple[str, ...], Parameter(negative="")] = ("*",),
    expires: str = "90d",
) -> None:
    """Make a token and print it: it is shown once, and kept nowhere.

    Verbs: ls, show, stats, logs, events, doctor, plan, create, host, start, stop, pause, snapshot, fork, rm, net, exec,
    console, cp; * is all. With host a description may name files, folders and devices of the host, which is as much as
    you can do.

    Parameters
    ----------
    name
        What you call it.
    verb
        What it is for. May be repeated.
    machine
        The machines it is for, by name or pattern: web, ci-*; all when left out. May be repeated.
    expires
        How long it holds: 30m, 12h, 90d, never.
    """
    print(tokens.create(name, verbs=verb, machines=machine, seconds=_seconds(expires)))


def _seconds(text: str) -> float:
    if text == "never":
        return 0.0
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.isascii() and number.isdecimal() and 0 < int(number) < 10**6:
        return float(int(number) * _UNITS[unit])
    problem = Problem("--expires", text, "no length of time", "for example 30m, 12h, 90d, never")
    raise SpecError("this token cannot be made", problems=[problem])


@app.command
def ls(*, json: Switch = False) -> None:
    """List the tokens."""
    rows = [one.plain() for one in tokens.every()]
    if json:
        output.print_json(rows)
        return
    shown = [
        {
            "name": row["name"],
            "verbs": ",".join(row["verbs"]),
            "machines": ",".join(row["machines"]),
            "expires": "expired" if row["expired"] else _day(row["expires"]),
        }
        for row in rows
    ]
    output.table(shown, ("name", "verbs", "machines", "expires"))


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "never"


@app.command
def revoke(*names: str) -> None:
    """From now on these tokens are for nothing.

    Parameters
    ----------
    names
        Their names.
    """
    for name in names:
        tokens.revoke(name)
