"""The verbs below ``replica``: ls, take, rm."""

from __future__ import annotations

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Group, Switch
from tinamou.cli.loop import run_until_done
from tinamou.fleet import replicas

app: Group = Group()


@app.named("ls")
def list_(*, json: Switch = False) -> None:
    """List the replicas that other hosts keep here, and how old they are."""
    found = replicas.every()
    if json:
        output.print_json([late.asdict(one) for one in found])
        return
    rows = [
        {
            "machine": one.name,
            "from": one.host,
            "as of": output.when(one.at),
            "age": f"{one.age:.0f} s",
            "kib": one.size >> 10,
        }
        for one in found
    ]
    output.table(rows, ("machine", "from", "as of", "age", "kib"))


@app.command
def take(name: str, /, *, json: Switch = False) -> None:
    """Make a machine of its newest replica here, off, and say what is lost: its own host does not come back."""
    taken = run_until_done(replicas.take(name, progress=output.progress))
    output.warn(*taken.notes)
    if json:
        output.print_json({"name": taken.record.name, "notes": list(taken.notes)})
    else:
        print(taken.record.name)


@app.command
def rm(name: str, /) -> None:
    """Remove a machine's newest replica from this host."""
    replicas.remove(name)
