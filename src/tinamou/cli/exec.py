"""The verb ``exec``: run a command in a running guest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import BinaryIO

from tinamou.cli import after_dashes
from tinamou.cli.loop import run_until_done
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
    record = life.running(name)
    words = after_dashes.words
    if not words:
        print("tinamou: what shall run? write tinamou exec NAME -- COMMAND", file=sys.stderr)
        return 2
    data = None if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
    return run_until_done(_run(str(record.file("agent.sock")), words, data, timeout))


async def _run(socket: str, words: list[str], data: bytes | None, timeout: float | None) -> int:
    """Print what the command prints while it runs, or at its end where the guest has no shell; its exit status."""
    from tinamou.cli.running import print_output
    from tinamou.guest.agent import Agent
    from tinamou.guest.stream import NoShellError

    def to(stream: BinaryIO) -> Callable[[bytes], None]:
        def hear(piece: bytes) -> None:
            stream.write(piece)
            stream.flush()

        return hear

    async with Agent(socket) as agent:
        try:
            done = await agent.stream(words, to(sys.stdout.buffer), to(sys.stderr.buffer), input=data, timeout=timeout)
        except NoShellError:
            done = await agent.run(words, input=data, timeout=timeout)
    return print_output(done)
