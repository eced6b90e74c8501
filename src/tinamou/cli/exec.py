"""The verb ``exec``: run a command in a running guest."""

from __future__ import annotations

import sys

from tinamou.cli import after_dashes
from tinamou.machine import life


def command(name: str, *, timeout: float | None = None) -> int:
    """Run a command in a machine: tinamou exec NAME -- COMMAND; ends with its exit status.

    Parameters
    ----------
    name
        The machine.
    timeout
        Seconds the command may take; it is killed then.
    """
    import asyncio

    from tinamou.cli.run import print_output
    from tinamou.guest.agent import Agent

    record = life.running(name)
    words = after_dashes.words
    if not words:
        print("tinamou: what shall run? write tinamou exec NAME -- COMMAND", file=sys.stderr)
        return 2
    data = None if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
    agent = Agent(str(record.file("agent.sock")))
    return print_output(asyncio.run(agent.run(words, input=data, timeout=timeout)))
