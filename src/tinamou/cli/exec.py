"""The verb ``exec``: run a command in a running guest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, BinaryIO

from cyclopts import Parameter

from tinamou.cli import after_dashes
from tinamou.cli.loop import run_until_done
from tinamou.errors import Problem, SpecError
from tinamou.machine import life


def command(
    name: str, /, *, env: Annotated[tuple[str, ...], Parameter(negative="")] = (), timeout: float | None = None
) -> int:
    """Run a command in a machine: tinamou exec NAME -- COMMAND; ends with its exit status.

    Parameters
    ----------
    name
        The machine.
    env
        A variable of the command's environment, NAME=VALUE; may be repeated.
    timeout
        Seconds the command may take; it is killed then.
    """
    record = life.running(name)
    words = after_dashes.words
    if not words:
        print("tinamou: what shall run? write tinamou exec NAME -- COMMAND", file=sys.stderr)
        return 2
    problems = [
        Problem("--env", one, "not of the form NAME=VALUE") for one in env if not one.partition("=")[0] or "=" not in one
    ]
    if problems:
        raise SpecError("--env is not understood", problems=problems)
    environment = dict(one.split("=", 1) for one in env)
    data = None if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
    return run_until_done(_run(str(record.file("agent.sock")), words, data, environment, timeout))


async def _run(socket: str, words: list[str], data: bytes | None, environment: dict[str, str], timeout: float | None) -> int:
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
            out, err = to(sys.stdout.buffer), to(sys.stderr.buffer)
            done = await agent.stream(words, out, err, input=data, environment=environment, timeout=timeout)
        except NoShellError:
            done = await agent.run(words, input=data, environment=environment, timeout=timeout)
    return print_output(done)
