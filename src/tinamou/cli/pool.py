"""The verbs below ``pool``: create, ls, show, take, run, rm."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from tinamou.cli import after_dashes, output
from tinamou.cli.grammar import Group, Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.cli.options import MachineOptions, spec_from
from tinamou.errors import Problem, SpecError, TinamouError

if TYPE_CHECKING:
    from tinamou.state.pools import PoolEntry

app: Group = Group()


@app.command
def create(
    name: str,
    source: str = "",
    *,
    size: int = 4,
    bound: str = "",
    timeout: float = 300.0,
    options: Annotated[MachineOptions | None, Parameter(name="*", negative="")] = None,
    json: Switch = False,
) -> None:
    """Boot a machine once and keep copies of it waiting, until the pool is removed.

    Parameters
    ----------
    name
        The pool's name.
    source
        An image, a machine file, or a checkpoint; the tiny guest when left out. Machines of an image have a network only
        when --net or the file asks for one.
    size
        How many machines wait.
    bound
        What the waiting machines may occupy together, for example 500M: above it none is added.
    timeout
        Seconds the guest may take to boot.
    """
    from tinamou.machine import pooled

    request = _checked(name, size, bound, source, options)
    entry = run_until_done(pooled.create(name, size, bound=bound, timeout=timeout, **request))
    output.result(_rows([entry])[0], entry.name, json=json)


def _checked(name: str, size: int, bound: str, source: str, options: MachineOptions | None) -> dict[str, Any]:
    """The checkpoint or the spec a pool is made of; every problem of its options at once. Raises SpecError."""
    from tinamou.snapshots.checkpoint import checkpoints_dir
    from tinamou.spec import NAME
    from tinamou.units import Size

    problems = []
    if not re.fullmatch(NAME, name):
        problems.append(Problem("name", name, "not a name", "lower-case letters, digits and dashes, at most 48"))
    if not 1 <= size <= 1000:
        problems.append(Problem("--size", size, "out of range", "from 1 to 1000"))
    if options is not None and options.name:
        problems.append(Problem("--name", options.name, "each machine of a pool has a name of its own", "leave it out"))
    try:
        Size.parse(bound or "1M")
    except ValueError as error:
        problems.append(Problem("--bound", bound, str(error), "write for example 500M"))
    kept = source and "/" not in source and (checkpoints_dir() / source / "checkpoint.json").exists()
    if kept and options is not None and options != MachineOptions():
        problems.append(Problem("source", source, "a checkpoint's machine is what it is", "leave the machine's options out"))
    if problems:
        raise SpecError("the pool cannot be made", problems=problems)
    return {"checkpoint": source} if kept else {"spec": spec_from(source, options, apart=True)}


async def _held(name: str) -> dict[str, Any]:
    """What the keeper says, nothing where it does not answer."""
    from tinamou.machine.pooled import PoolClient
    from tinamou.monitor.states import LOOK_SECONDS

    try:
        return await PoolClient(name).ask("look", LOOK_SECONDS)
    except (TinamouError, OSError, ValueError):
        return {}


def _rows(entries: Sequence[PoolEntry]) -> list[dict[str, object]]:
    """The pools as rows, all keepers asked at once."""
    import asyncio

    async def every() -> list[dict[str, Any]]:
        return await asyncio.gather(*(_held(entry.name) for entry in entries))

    return [_row(entry, held) for entry, held in zip(entries, run_until_done(every()), strict=True)]


def _row(entry: PoolEntry, held: Mapping[str, Any]) -> dict[str, object]:
    return {
        "name": entry.name,
        "state": "up" if held.get("up") else "starting" if held else "unknown",
        "waiting": held.get("waiting"),
        "size": entry.size,
        "occupied": held.get("occupied"),
        "bound": entry.bound,
        "source": entry.checkpoint or str(entry.spec.get("image", "tiny")),
        "keeper": entry.keeper[0],
        "created": output.when(entry.created),
    }


def _cleared() -> None:
    from tinamou.machine.reconcile import reconcile

    output.warn(*reconcile())


@app.named("ls")
def list_(*, json: Switch = False) -> None:
    """List pools."""
    from tinamou.state import pools

    _cleared()
    rows = _rows(pools.every())
    if json:
        output.print_json(rows)
    else:
        shown = [{**row, "occupied": f"{int(str(row['occupied'] or 0)) >> 20}M"} for row in rows]
        output.table(shown, ("name", "state", "waiting", "size", "occupied", "source", "keeper", "created"))


@app.command
def show(name: str, *, json: Switch = False) -> None:
    """Show one pool and what its machines are.

    Parameters
    ----------
    name
        The pool.
    """
    from tinamou.state import pools

    _cleared()
    entry = pools.find(name)
    shown = {**_rows([entry])[0], "spec": entry.spec, "log": str(entry.directory / "keeper.log")}
    if json:
        output.print_json(shown)
    else:
        for key, value in shown.items():
            print(f"{key:>10}  {'' if value is None else value}")


@app.command
def take(name: str, *, timeout: float = 60.0, json: Switch = False) -> None:
    """Take a machine that stays, and print its name; see exec, stop, rm.

    Parameters
    ----------
    name
        The pool.
    timeout
        Seconds to wait where none is waiting.
    """
    from tinamou.machine.connected import Connected
    from tinamou.machine.listing import described
    from tinamou.machine.pooled import PoolClient

    async def taken() -> object:
        machine = Connected.of_fork(*await PoolClient(name).claim(timeout))
        await machine.release(stays=True)
        return described(machine.record)

    shown: Any = run_until_done(taken())
    output.warn(*(shown["notes"] or ()))
    output.result(shown, shown["name"], json=json)


@app.command
def run(name: str, *, timeout: float = 60.0, time_limit: float | None = None, timings: Switch = False) -> int:
    """Run one command in a machine of the pool, which is gone afterwards: tinamou pool run NAME -- COMMAND.

    Parameters
    ----------
    name
        The pool.
    timeout
        Seconds to wait where no machine is waiting.
    time_limit
        Seconds the command may take; the machine is ended then, and the exit status is 124.
    timings
        Print on stderr how long taking the machine took.
    """
    from tinamou.cli import running
    from tinamou.machine.connected import Connected
    from tinamou.machine.pooled import PoolClient

    words = after_dashes.words
    if not words:
        print("tinamou: what shall run? write tinamou pool run NAME -- COMMAND", file=sys.stderr)
        return 2

    async def whole() -> int:
        began = time.monotonic()
        machine = Connected.of_fork(*await PoolClient(name).claim(timeout))
        output.warn(*machine.record.notes)
        if timings:
            print(f"{'taken':>10} {(time.monotonic() - began) * 1000:8.1f} ms", file=sys.stderr)
        return await running.see_through(machine, None, words, running.How(time_limit=time_limit))

    return run_until_done(whole())


@app.named("rm")
def remove(*names: str) -> None:
    """Remove pools and the machines that wait in them; machines that were taken go on.

    Parameters
    ----------
    names
        The pools.
    """
    from tinamou.machine import pooled

    for name in names:
        pooled.remove(name)
