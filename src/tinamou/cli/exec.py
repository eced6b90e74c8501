"""The verb ``exec``: run a command in a running guest, at a terminal of its own where one is asked for."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

from tinamou.cli import after_dashes, output
from tinamou.cli.grammar import Parameter
from tinamou.cli.loop import run_until_done
from tinamou.cli.streams import Given, given_input, hearing

if TYPE_CHECKING:
    from tinamou.guest.command import Command


def command(
    name: str,
    /,
    *,
    env: Annotated[tuple[str, ...], Parameter(name=["--env", "-e"], negative="")] = (),
    workdir: Annotated[str, Parameter(name=["--workdir", "-w"])] = "",
    user: Annotated[str, Parameter(name=["--user", "-u"])] = "",
    interactive: Annotated[bool, Parameter(name=["--interactive", "-i"], negative="")] = False,
    tty: Annotated[bool, Parameter(name=["--tty", "-t"], negative="")] = False,
    timeout: float | None = None,
    time_limit: float | None = None,
) -> int:
    """Run a command in a machine: tinamou exec NAME -- COMMAND; ends with its exit status.

    tinamou exec -it web -- sh     a shell; Enter ~ . leaves it when the guest no longer answers.

    Parameters
    ----------
    name
        The machine. One that is being started, or whose guest still boots, is waited for.
    env
        A variable of the command's environment, NAME=VALUE; NAME alone takes this host's value. May be repeated.
    workdir
        The folder it begins in; the user's home when left out.
    user
        The user it runs as, by name or number; root when left out.
    interactive
        Give it what is typed here. Input that is no terminal is given to it in any case.
    tty
        Give it a terminal, which is this one.
    timeout
        Seconds to wait until the guest answers; 300 from the machine's start on, and 30 at least, when left out.
    time_limit
        Seconds the command may take; it is killed then, and the exit status is 124.
    """
    words = after_dashes.words
    if not words:
        print("tinamou: what shall run? write tinamou exec NAME -- COMMAND", file=sys.stderr)
        return 2
    what = Given(env, workdir, user, interactive, tty).command(words)
    if tty:
        return run_until_done(_at_terminal(name, what, timeout, time_limit))
    data = given_input(words, f"tinamou exec -it {name} -- {words[0]}", typed=interactive)
    return run_until_done(_run(name, what, data, timeout, time_limit))


async def _at_terminal(name: str, what: Command, timeout: float | None, time_limit: float | None) -> int:
    from tinamou.guest.terminal import hold, size
    from tinamou.operations import commands

    async with commands.open_terminal(name, what, size(), timeout=timeout, progress=output.waits) as session:
        return await hold(session, time_limit=time_limit)


async def _run(
    name: str, what: Command, data: AsyncIterator[bytes] | None, timeout: float | None, time_limit: float | None
) -> int:
    """Print what the command prints while it runs; its exit status."""
    from tinamou.operations import commands

    how: dict[str, Any] = {"timeout": timeout, "time_limit": time_limit, "progress": output.waits}
    return await commands.stream(name, what, *hearing(), input=data, **how)
