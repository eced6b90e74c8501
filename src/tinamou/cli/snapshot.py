"""The verbs below ``snapshot``: create, ls, tree, show, revert, rm, flatten, rename, note, schedule, unschedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Group, Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.state import machines

if TYPE_CHECKING:
    from tinamou.snapshots.history import Snapshot

app: Group = Group()
MAX_DEPTH = 16


@app.command
def create(
    name: str,
    /,
    snapshot: str = "",
    *,
    note: str = "",
    quiesce: Switch = False,
    deadline: float = 10.0,
    depth: int = MAX_DEPTH,
    schedule: Annotated[str, Parameter(show=False)] = "",
    json: Switch = False,
) -> None:
    """Freeze the present state of all disks of a machine, running or not.

    Parameters
    ----------
    snapshot
        The snapshot's name; a number of its own when left out.
    note
        A few words to remember it by.
    quiesce
        Have the guest hold its file systems still for the moment.
    deadline
        Seconds after which the guest goes on by all means.
    depth
        Flatten chains deeper than this; 0 for never.
    """
    from tinamou.machine import snapshots

    taking = snapshots.take(
        machines.find(name),
        snapshot,
        note=note,
        schedule=schedule,
        quiesce=deadline if quiesce else 0.0,
        depth=depth,
        progress=output.progress,
    )
    taken = run_until_done(taking)
    if json:
        times = {"transaction_seconds": taken.transaction, "seconds": taken.whole}
        output.print_json({**_plain(taken.snapshot), **times})
    else:
        print(taken.snapshot.name)


@app.named("ls")
def list_(name: str, /, *, json: Switch = False) -> None:
    """List the snapshots of a machine, oldest first."""
    from tinamou.snapshots.history import load

    history = load(machines.find(name).path)
    if json:
        output.print_json([_plain(one) for one in history.snapshots])
        return
    rows = [
        {
            "name": ("* " if one.number == history.current else "  ") + one.name,
            "created": output.when(one.created),
            "disks": len(one.files),
            "state": one.state + (", quiesced" if one.quiesced else ""),
            "note": one.note,
        }
        for one in history.snapshots
    ]
    output.table(rows, ("name", "created", "disks", "state", "note"))


@app.command
def tree(name: str, /) -> None:
    """Draw how the snapshots of a machine grew out of each other."""
    from tinamou.snapshots.history import load
    from tinamou.snapshots.picture import draw

    print(draw(load(machines.find(name).path)))


@app.command
def show(name: str, snapshot: str, /, *, json: Switch = False) -> None:
    """Everything about one snapshot.

    Parameters
    ----------
    snapshot
        The snapshot's name or number.
    """
    from tinamou.snapshots.history import load

    output.fields(_plain(load(machines.find(name).path).snapshot(snapshot)), 10, json=json)


@app.command
def revert(name: str, snapshot: str, /, *, restart: Switch = False) -> None:
    """Make the state of a snapshot the machine's present one; what was written after its last snapshot is gone.

    Parameters
    ----------
    snapshot
        The snapshot's name or number.
    restart
        Cut the power of a running machine first, and start it again afterwards.
    """
    from tinamou.cli import start
    from tinamou.machine import life, snapshots

    record = machines.find(name)
    again = restart and record.running
    snapshots.history_of(record).snapshot(snapshot)
    if again:
        life.kill(record)
    run_until_done(snapshots.go_back(machines.find(name), snapshot, progress=output.progress))
    if again:
        start.command(name)


@app.command
def rm(name: str, *snapshots: str) -> None:
    """Remove snapshots; the machine and its other snapshots stay as they are.

    Parameters
    ----------
    snapshots
        Their names or numbers.
    """
    from tinamou.machine import snapshots as operations

    run_until_done(operations.remove(machines.find(name), list(snapshots), progress=output.progress))


@app.command
def flatten(name: str, /) -> None:
    """Shorten the chains of files a machine reads through; snapshots stay."""
    from tinamou.machine import snapshots

    run_until_done(snapshots.flatten_all(machines.find(name), progress=output.progress))


@app.command
def rename(name: str, snapshot: str, new: str, /) -> None:
    """Give a snapshot another name.

    Parameters
    ----------
    snapshot
        Its name or number.
    new
        Its name from now on.
    """
    from tinamou.machine import snapshots

    run_until_done(snapshots.rename(machines.find(name), snapshot, new))


@app.command
def note(name: str, snapshot: str, text: str, /) -> None:
    """Write a note on a snapshot.

    Parameters
    ----------
    snapshot
        Its name or number.
    text
        The note; empty to remove it.
    """
    from tinamou.machine import snapshots

    run_until_done(snapshots.describe(machines.find(name), snapshot, text))


@app.command
def schedule(name: str, /, *, every: str, keep: int = 8, quiesce: Switch = False, check: Switch = False) -> None:
    """Take snapshots at set times, by a systemd timer, and keep the newest ones.

    Parameters
    ----------
    every
        15min, hourly, 6h, daily, weekly, …
    keep
        How many of this schedule's snapshots stay.
    quiesce
        Have the guest hold its file systems still each time.
    check
        Check the disks at these times instead.
    """
    from tinamou.machine.schedules import refuse_diskless, write_schedule
    from tinamou.snapshots.schedule import Schedule
    from tinamou.system.unit_files import systemd_runs

    record = machines.find(name)
    refuse_diskless(record)
    plan = Schedule(record.name, every, 0 if check else max(1, keep), quiesce)
    for path in write_schedule(plan):
        print(path)
    if not systemd_runs():
        output.warn(f"systemd does not run here: nothing starts {plan.unit}.timer until it does")


@app.command
def unschedule(name: str, /) -> None:
    """End all schedules of a machine; its snapshots stay."""
    from tinamou.machine.schedules import remove_schedules

    for path in remove_schedules(name):
        print(f"removed {path}")


@app.named("scheduled", show=False)
def scheduled(name: str, /, *, label: str, keep: int, quiesce: Switch = False) -> None:
    """What a schedule's timer runs."""
    from tinamou.machine.snapshots import take_scheduled

    print(run_until_done(take_scheduled(machines.find(name), label, keep, quiesce=10.0 if quiesce else 0.0)).snapshot.name)


def _plain(shot: Snapshot) -> dict[str, object]:
    return late.asdict(shot)
