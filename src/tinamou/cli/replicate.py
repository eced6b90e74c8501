"""The verb ``replicate``: a machine's disks, as they are now, to another host."""

from __future__ import annotations

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import SpecError


def command(
    name: str, host: str, /, *, every: str = "", off: Switch = False, full: Switch = False, json: Switch = False
) -> None:
    """Keep a copy of a machine's disks on another host, for the day this one does not come back; running or off.

    The first time everything goes over, then what was written since. `tinamou replica` there lists them, and makes machines
    of them.

    Parameters
    ----------
    every
        Do it again and again by a systemd timer: 5m, 30m, 6h, hourly.
    off
        Remove the timer; the replica stays.
    full
        Copy everything again.
    json
        What went over, as JSON.
    """
    from tinamou.fleet import replicas
    from tinamou.machine import schedules
    from tinamou.snapshots.schedule import Schedule
    from tinamou.state import machines

    for option, given in (("--every", every), ("--full", full), ("--json", json)):
        if off and given:
            raise SpecError(f"{option} would do nothing", why="--off copies nothing", fix=f"leave --off or {option} out")
    if off:
        schedules.remove_replication(machines.find(name).name)
        output.say(f"{name} is not replicated by itself any more")
        return
    if every:
        for path in schedules.write_schedule(Schedule(machines.find(name).name, every, 0, to=host)):
            output.say(str(path))
    done = run_until_done(replicas.replicate(name, host, full=full, progress=output.progress))
    if json:
        output.print_json(late.asdict(done))
    else:
        what = "all of it" if done.whole else "what was written since"
        output.say(f"{host} has replica {done.number} of {name}: {what}, {done.size >> 10} KiB in {done.seconds:.1f} s")
