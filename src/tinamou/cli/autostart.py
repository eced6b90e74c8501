"""The verb ``autostart``: machines that start with the host."""

from __future__ import annotations

import os
from typing import Annotated

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_told
from tinamou.errors import Problem, SpecError
from tinamou.machine.autostart import Restart, instance
from tinamou.monitor.states import GRACE_SECONDS
from tinamou.operations import autostarting
from tinamou.system.paths import Host, unit_dir
from tinamou.system.unit_files import systemd_runs


def command(
    name: str = "",
    /,
    *,
    after: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    delay: float = 0.0,
    suspend: Switch = False,
    restart: Restart = "no",
    grace: float | None = None,
    off: Switch = False,
    attend: Switch = False,
    json: Switch = False,
) -> None:
    """Have a machine start with this host, and end in order with it: by systemd. Without a name, list those that do.

    Parameters
    ----------
    after
        Another machine that starts first, and ends after it; may be repeated.
    delay
        Seconds to wait before it is started.
    suspend
        Save it to disk when the host goes down, and take it up when that is back, instead of shutting its guest down.
    restart
        Start it again after it ended by itself: on-failure when something went wrong, always also when its guest shut down.
    grace
        Seconds its guest may take to shut down, before its power is cut; 30 when left out.
    off
        Start it with the host no more.
    attend
        Do what its unit does, in the foreground, for a host with another init: start it, end it at SIGTERM.
    json
        The list as JSON.
    """
    how = {"--after": after, "--delay": delay, "--suspend": suspend, "--restart": restart != "no"}
    how |= {"--grace": grace is not None}
    _refuse_together(name, [one for one, given in how.items() if given], off=off, attend=attend, json=json)
    if not name:
        _list(json=json)
        return
    if attend:
        _attend(name)
        return
    if off:
        paths = autostarting.off(name)
    else:
        seconds = GRACE_SECONDS if grace is None else grace
        paths = autostarting.on(name, after=after, delay=delay, suspend=suspend, restart=restart, grace=seconds)
    for path in paths:
        print(f"removed {path}" if off else path)
    if not off:
        _say_what_is_missing(name)


def _refuse_together(name: str, how: list[str], *, off: bool, attend: bool, json: bool) -> None:
    """Raises SpecError for options that would say nothing."""
    alone = [one for one, given in (("--off", off), ("--attend", attend)) if given]
    shown = " ".join([*alone, *how])
    problems = []
    if not name and shown:
        problems.append(Problem("options", shown, "they are said of a machine", "name it"))
    if name and json:
        problems.append(Problem("--json", name, "it is the list that is shown as JSON", "leave the name out, or --json"))
    if alone and len(alone) + len(how) > 1:
        problems.append(Problem("options", shown, "--off and --attend stand alone", "leave the others out"))
    if problems:
        raise SpecError("these options do not go together", problems=problems)


def _list(*, json: bool) -> None:
    rows = [{"name": name, **late.asdict(one), "unit": instance(name)} for name, one in autostarting.listed().items()]
    if json:
        output.print_json(rows)
        return
    shown = [{**row, "after": " ".join(map(str, row["after"])), "suspend": "yes" if row["suspend"] else ""} for row in rows]
    output.table(shown, ("name", "after", "delay", "suspend", "restart", "grace"))


def _attend(name: str) -> None:
    async def attended() -> int:
        await autostarting.attend(name, progress=output.progress)
        return 0

    run_until_told(attended())


def _say_what_is_missing(name: str) -> None:
    """What keeps systemd from doing it, loudly."""
    if not systemd_runs():
        output.warn(f"systemd does not run here: nothing starts {instance(name)} until it does")
    if unit_dir() != Host.default({}).units:
        output.warn(f"systemd reads no units in {unit_dir()}, unless it is told to (SYSTEMD_UNIT_PATH)")
    if os.geteuid() != 0:
        output.warn("units of a user run while the user is logged in; from boot on after: loginctl enable-linger")
