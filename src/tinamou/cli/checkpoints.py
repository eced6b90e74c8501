"""The verbs below ``checkpoints``: ls, show, tree, rm, export, import, send, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Force, Group, Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import StateError

app: Group = Group()


@app.named("ls")
def list_(*, json: Switch = False) -> None:
    """List all checkpoints, oldest first."""
    from tinamou.machine.checkpoints import children, every
    from tinamou.machine.reconcile import reconcile

    output.warn(*reconcile())
    rows = [
        {
            "name": one.name,
            "kind": one.kind,
            "machine": one.machine,
            "created": output.when(one.created),
            "memory": f"{one.memory >> 20}M",
            "forks": len(children(one)),
            "qemu": one.version,
        }
        for one in every()
    ]
    output.table(rows, ("name", "kind", "machine", "created", "memory", "forks", "qemu"), json=json)


@app.command
def show(name: str, /, *, json: Switch = False) -> None:
    """Show one checkpoint, and whether it can be loaded here.

    Parameters
    ----------
    name
        The checkpoint.
    """
    from tinamou.machine.checkpoints import children, find
    from tinamou.snapshots.checkpoint import check

    found = find(name)
    try:
        check(found)
        usable = "yes"
    except StateError as error:
        usable = "; ".join(map(str, error.problems))
    shown = {
        **{key: value for key, value in late.asdict(found).items() if key not in ("plan", "record")},
        "machine_type": found.plan["machine_type"],
        "forks": [record.name for record in children(found)],
        "usable": usable,
    }
    output.fields(shown, 14, json=json)


@app.command
def tree() -> None:
    """Show machines, their checkpoints and the forks of those as a tree."""
    from tinamou.machine import checkpoints

    print("\n".join(checkpoints.tree()))


@app.named("rm")
def remove(*names: str, force: Force = False) -> None:
    """Remove checkpoints.

    Parameters
    ----------
    names
        The checkpoints.
    force
        Remove the forks that still exist with them.
    """
    from tinamou.operations import states

    for name in names:
        for fork in run_until_done(states.remove(name, force=force)):
            output.warn(f"removed {fork} with it")


@app.command
def export(name: str, file: Path, *, json: Switch = False) -> None:
    """Write a portable checkpoint into one file, which stands alone: for another host.

    Parameters
    ----------
    name
        The checkpoint.
    file
        The file to write; a regular file that is there is replaced.
    """
    from tinamou.operations import states

    size = run_until_done(states.export(name, file, progress=output.progress))
    if json:
        output.print_json({"checkpoint": name, "file": str(file.absolute()), "size": size})
    else:
        output.say(f"{size >> 20} MiB")


@app.named("import")
def take_in(file: Path, *, name: str = "", json: Switch = False) -> None:
    """Make a checkpoint from an exported file, and say whether it can be loaded here.

    Parameters
    ----------
    file
        The file that was exported.
    name
        Another name than the checkpoint had.
    """
    from tinamou.operations import states

    imported = run_until_done(states.take_in(file, name))
    taken, problems = imported.checkpoint, imported.problems
    for one in problems:
        output.warn(f"it cannot be loaded here: {one}")
    output.result({"checkpoint": taken.name, "machine": taken.machine, "problems": list(problems)}, taken.name, json=json)


@app.command
def send(name: str, host: str, /, *, new: Annotated[str, Parameter(name="--name")] = "", json: Switch = False) -> None:
    """Make the same checkpoint on another host; of disks that rest on an image which it has only what differs goes over.

    Parameters
    ----------
    name
        The checkpoint, a portable one.
    new
        Another name than it has here.
    """
    from tinamou.fleet import sending

    sent = run_until_done(sending.send(name, host, new, progress=output.progress))
    for one in sent.problems:
        output.warn(f"it cannot be loaded there: {one}")
    if json:
        output.print_json(late.asdict(sent))
    else:
        output.say(f"{sent.name} is on {host}: {sent.size >> 10} KiB in {sent.seconds:.1f} s")


@app.command
def restore(checkpoint: str, *, name: str = "", json: Switch = False) -> None:
    """Start the machine of a checkpoint again, as the same machine, from the moment it was saved.

    Parameters
    ----------
    checkpoint
        The checkpoint.
    name
        Another name than the machine had then.
    """
    from tinamou.operations import states

    restored = run_until_done(states.restore(checkpoint, name=name))
    output.warn(*restored.notes)
    output.result(
        {"checkpoint": restored.checkpoint.name, "name": restored.names[0], "notes": restored.notes},
        restored.names[0],
        json=json,
    )
