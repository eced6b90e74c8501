"""The verb ``cp``: files, folders and tar archives between this host and a guest."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

from tinamou.cli import output
from tinamou.cli.grammar import Parameter
from tinamou.cli.loop import run_until_done
from tinamou.errors import GuestError, Problem, SpecError
from tinamou.state.allowed import of_others

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent
    from tinamou.guest.copy import Copied, End
    from tinamou.state.record import Record

_TAR = "-"
_SHOWN = 5


def command(
    *paths: Annotated[str, Parameter(allow_leading_hyphen=True)], limit: str = "", timeout: float | None = None
) -> int:
    """Copy files and folders: tinamou cp FILE… NAME:/path, or tinamou cp NAME:/path… FILE.

    A path in a guest is NAME:/path. Folders are copied with all they hold, FOLDER/. is what a folder holds; modes are kept,
    and holes stay holes. It goes through the guest's agent and needs no network; without an agent, by scp. With - for the
    host's side a tar archive is read from stdin or written to stdout: tinamou cp NAME:/path -, tinamou cp - NAME:/path.

    Parameters
    ----------
    paths
        What to copy, and last where to: a new name, or a folder it goes into.
    limit
        How much a guest may send, 10G for example; nine tenths of the room there is, when left out.
    timeout
        Seconds to wait until the guest answers; 300 from the machine's start on, and 30 at least, when left out.
    """

    from tinamou.guest.copy import parse_end

    if len(paths) < 2:
        print("tinamou: copy what to where? write tinamou cp FILE NAME:/path", file=sys.stderr)
        return 2
    if unknown := next((path for path in paths if path.startswith("-") and path != _TAR), ""):
        print(f"tinamou: there is no option {unknown} (tinamou cp --help); a file is ./{unknown}", file=sys.stderr)
        return 2
    *sources, target = (parse_end(path) for path in paths)
    name = _machine(sources, target)
    bound = _bound(limit)
    _check_tar(sources, target)
    run_until_done(_copy(name, sources, target, bound, timeout))
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


def _bound(limit: str) -> int | None:
    from tinamou.units import Size

    try:
        return Size.parse(limit) if limit else None
    except ValueError as error:
        problem = Problem("--limit", limit, str(error), "write for example 10G")
        raise SpecError("This cannot be copied", problems=[problem]) from None


def _check_tar(sources: list[End], target: End) -> None:
    """An archive is alone, and does not go to a terminal. Raises SpecError."""
    ends = [end.path for end in (*sources, target) if not end.machine]
    if _TAR not in ends:
        return
    problems = []
    if len(sources) > 1:
        problems.append(Problem("paths", _TAR, "an archive is copied alone", "./- is a file of that name"))
    if target.path == _TAR and os.isatty(1):
        problems.append(
            Problem("paths", _TAR, "a tar archive is nothing for a terminal", "tinamou cp NAME:/path - | tar -t")
        )
    if problems:
        raise SpecError("These paths cannot be copied", problems=problems)


async def _copy(name: str, sources: list[End], target: End, limit: int | None, timeout: float | None) -> None:
    from tinamou.guest import copy, ssh
    from tinamou.guest.command import is_windows_path
    from tinamou.machine.waiting import Waiting

    wait = Waiting(name, timeout, output.waits)
    record = await wait.started(agent=False)
    windows = any(is_windows_path(end.path) for end in (*sources, target) if end.machine)
    if not (record.agent or windows):
        if record.ssh_port is None:
            raise GuestError(
                f"Nothing in {record.name} can take a copy", why="the image has no guest agent and no ssh server"
            )
        if _TAR in {target.path, sources[0].path}:
            fix = f"use its ssh: tinamou ssh {record.name} -- tar -c /path"
            raise GuestError(f"A tar archive goes through the guest's agent, and {record.name} has none", fix=fix)
        server = ssh.target(record.directory, record.ssh_user or "root", record.ssh_port)
        how: dict[str, Any] = {"seconds": wait.left, "waits": lambda: output.waits(f"waiting for the ssh server of {name}")}
        await copy.by_scp(server, [end.path for end in sources], target.path, into=bool(target.machine), **how)
        return
    async with await wait.agent(record) as agent:
        for source in sources:
            _told(source, await _one(agent, record, source, target, len(sources) > 1, limit))


async def _one(agent: Agent, record: Record, source: End, target: End, several: bool, limit: int | None) -> Copied:
    from tinamou.guest import copy
    from tinamou.images.progress import silent

    progress = output.progress if sys.stderr.isatty() else silent
    directory = "" if of_others(record) else record.directory  # a port of its own would need QEMU's monitor
    if target.machine and source.path == _TAR:
        return await copy.tar_into_guest(agent, 0, target.path, directory=directory, progress=progress)
    if target.machine:
        path = f"{target.path.rstrip('/')}/" if several else target.path
        return await copy.into_guest(agent, source.path, path, directory=directory, progress=progress)
    if target.path == _TAR:
        return await copy.tar_out_of_guest(agent, source.path, 1, directory=directory, progress=progress)
    return await copy.out_of_guest(agent, source.path, target.path, directory=directory, limit=limit, progress=progress)


def _told(source: End, copied: Copied) -> None:
    if not copied.verified:
        why = "the guest has no sha256sum, or it changed meanwhile"
        output.warn(f"{source.path} was copied, but not checked: {why}")
    if copied.left_out:
        shown = [name.replace("\n", "\\n") for name in copied.left_out[:_SHOWN]]
        more = f" and {len(copied.left_out) - _SHOWN} more" if len(copied.left_out) > _SHOWN else ""
        output.warn(f"{source.path}: devices and pipes were left out: {', '.join(shown)}{more}")
