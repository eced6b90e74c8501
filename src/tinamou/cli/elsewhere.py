"""Runs a verb on another host (``tinamou -H HOST VERB …``): with the input, output, terminal and exit status of here."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinamou.cli import after_dashes
from tinamou.cli.loop import run_until_done

if TYPE_CHECKING:
    from tinamou.fleet.hosts import Host

__all__ = ["run"]

_CONNECT_SECONDS = 30.0


def run(words: Sequence[str]) -> int:
    """Run ``[HOST, VERB, …]`` there; the exit status of the tinamou there. Raises HostError, StateError."""
    if len(words) < 2 or words[0].startswith("-"):
        print("tinamou: which host, and what shall run there? write tinamou -H HOST VERB …", file=sys.stderr)
        return 2
    from tinamou.fleet import hosts

    behind = [] if after_dashes.words is None else ["--", *after_dashes.words]
    return run_until_done(_attended(hosts.find(words[0]), [*words[1:], *behind]))


async def _attended(host: Host, words: Sequence[str]) -> int:
    from tinamou.fleet import ssh
    from tinamou.system import exec_async, terminal

    at_terminal = terminal.is_terminal(0) and terminal.is_terminal(1)
    with ssh.client(host, connect=_CONNECT_SECONDS) as client:
        argv = [*host.command, *words] if at_terminal else ssh.attended([*host.command, *words])
        status = await exec_async.attended(client.argv(argv, "-tt" if at_terminal else "-T"))
        if client.ended_by == signal.SIGINT or status == -signal.SIGINT:
            raise KeyboardInterrupt
        client.check(status)
        return status
