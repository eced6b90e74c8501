"""The verb ``cp``: files and folders between this host and a guest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou.cli import output
from tinamou.cli.loop import run_until_done
from tinamou.errors import GuestError, Problem, SpecError
from tinamou.machine import life

if TYPE_CHECKING:
    from tinamou.guest.copy import Copied, End
    from tinamou.state.record import Record


def command(*paths: str) -> int:
    """Copy files and folders: tinamou cp FILE… NAME:/path, or tinamou cp NAME:/path… FILE.

    A path in a guest is NAME:/path. Folders are copied with all they hold, modes are kept. It goes through the guest's agent
    and needs no network; without an agent, by scp.

    Parameters
    ----------
    paths
        What to copy, and last where to: a new name, or a folder it goes into.
    """

    from tinamou.guest.copy import parse_end

    if len(paths) < 2:
        print("tinamou: copy what to where? write tinamou cp FILE NAME:/path", file=sys.stderr)
        return 2
    *sources, target = (parse_end(path) for path in paths)
    name = _machine(sources, target)
    run_until_done(_copy(life.running(name), sources, target))
    return 0


def _machine(sources: list[End], target: End) -> str:
    """The one machine a copy is about. Raises SpecError where it is about none, or several."""
    named = {end.machine for end in sources}
    if target.machine and named == {""}:
        return target.machine
    if not target.machine and len(named) == 1 and "" not in named:
        return named.pop()
    reason = "one side must be in a guest and the other on this host"
    fix = "write NAME:/path for a path in a guest; copy from guest to guest in two steps"
    raise SpecError("These paths cannot be copied", problems=[Problem("paths", None, reason, fix)])


async def _copy(record: Record, sources: list[End], target: End) -> None:
    from tinamou.guest import copy, ssh

    if not record.agent:
        if record.ssh_port is None:
            raise GuestError(
                f"Nothing in {record.name} can take a copy", why="the image has no guest agent and no ssh server"
            )
        server = ssh.target(record.directory, record.ssh_user or "root", record.ssh_port)
        await copy.by_scp(server, [end.path for end in sources], target.path, into=bool(target.machine))
        return
    from tinamou.guest.agent import Agent

    async with Agent(str(record.file("agent.sock"))) as agent:
        for source in sources:
            if target.machine:
                several = target.path if len(sources) == 1 else f"{target.path.rstrip('/')}/"
                _told(source, await copy.into_guest(agent, Path(source.path), several))
            else:
                _told(source, await copy.out_of_guest(agent, source.path, Path(target.path)))


def _told(source: End, copied: Copied) -> None:
    if not copied.verified:
        output.warn(f"{source.path} was copied, but not checked: the guest has no sha256sum")
