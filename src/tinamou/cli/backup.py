"""The verbs below ``backup``: create, ls, verify, restore, drill."""

from __future__ import annotations

import time
from pathlib import Path

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Group, Switch
from tinamou.cli.loop import run_until_done
from tinamou.state import machines

app: Group = Group()


@app.command
def create(
    name: str,
    folder: Path,
    *,
    nbd: str = "",
    full: Switch = False,
    quiesce: Switch = False,
    deadline: float = 10.0,
    json: Switch = False,
) -> None:
    """Back up a machine, running or not: the first time everything, then what was written since.

    Parameters
    ----------
    folder
        Where its backups are kept; one folder for each machine.
    nbd
        Send the data to NBD exports instead, of which the folder keeps the list: nbd://HOST/{disk}
    full
        Copy everything again.
    quiesce
        Have the guest hold its file systems still for the moment.
    deadline
        Seconds after which the guest goes on by all means.
    """
    from tinamou.machine.backups import back_up

    seconds = deadline if quiesce else 0.0
    backing_up = back_up(machines.find(name), folder, nbd=nbd, full=full, quiesce=seconds, progress=output.progress)
    backup = run_until_done(backing_up)
    output.end_progress()
    output.result(late.asdict(backup), f"{backup.number} {backup.kind} {backup.size >> 10} KiB", json=json)


@app.named("ls")
def list_(folder: Path, *, json: Switch = False) -> None:
    """List the backups in a folder.

    Parameters
    ----------
    folder
        Where they are kept.
    """
    from tinamou.snapshots.backup_shelf import read_shelf

    shelf = read_shelf(folder)
    if json:
        output.print_json([late.asdict(one) for one in shelf.backups])
        return
    rows = [
        {
            "number": one.number,
            "machine": shelf.machine,
            "kind": one.kind,
            "created": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.created)),
            "kib": one.size >> 10,
            "rests on": one.parent or "",
        }
        for one in shelf.backups
    ]
    output.table(rows, ("number", "machine", "kind", "created", "kib", "rests on"))


@app.command
def verify(folder: Path, number: int = 0) -> None:
    """Read a backup and all it rests on, and compare with the checksums taken when it was made.

    Parameters
    ----------
    folder
        Where it is kept.
    number
        Which one; the newest when left out.
    """
    from tinamou.snapshots.backup import verify as verify_backup
    from tinamou.snapshots.backup_shelf import read_shelf

    shelf = read_shelf(folder.absolute())
    backup = shelf.find(number)
    run_until_done(verify_backup(shelf, backup))
    print(f"backup {backup.number} of {shelf.machine} is what was written")


@app.command
def restore(folder: Path, name: str, /, *, number: int = 0) -> None:
    """Make a new machine from a backup; start it with tinamou start.

    Parameters
    ----------
    folder
        Where the backup is kept.
    name
        The new machine's name.
    number
        Which one; the newest when left out.
    """
    from tinamou.machine.backups import restore as restore_backup

    record = run_until_done(restore_backup(folder, name, number=number, progress=output.progress))
    output.end_progress()
    print(record.name)


@app.command
def drill(folder: Path, *, number: int = 0, timeout: float = 300.0, json: Switch = False) -> None:
    """Prove a backup: restore it into a throw-away machine without network, start it, and have its guest answer.

    Parameters
    ----------
    folder
        Where the backup is kept.
    number
        Which one; the newest when left out.
    timeout
        Seconds the guest may take to answer.
    """
    from tinamou.machine.backups import drill as drill_backup

    drilled = run_until_done(drill_backup(folder, number=number, seconds=timeout, progress=output.progress))
    output.end_progress()
    if json:
        output.print_json(late.asdict(drilled))
    else:
        print(f"backup {drilled.backup}: its guest answered after {drilled.seconds:.1f} s: {drilled.said}")
