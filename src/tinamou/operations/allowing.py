"""Who else may use one of root's machines: shown, given, taken back."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Sequence
from pathlib import Path

from tinamou.errors import Problem, SpecError, StateError
from tinamou.facts import files
from tinamou.state import machines
from tinamou.state.allowed import Allowed, allowed, change_allowed, update_allowed

__all__ = ["change", "shown"]


def shown(name: str = "") -> dict[str, list[str]]:
    """Machine → who may use it beside root, groups as ``@GROUP``; of one machine, or of each that others may use."""
    records = [machines.find(name)] if name else machines.machines()
    found = {record.name: _names(allowed(record.path)) for record in records}
    return {machine: names for machine, names in found.items() if names or name}


def change(name: str, who: Sequence[str], *, revoke: bool = False) -> list[str]:
    """Allow these users and groups to use a machine, or no longer: then without any name nobody else may.

    Returns what the caller must hear. Raises StateError, SpecError for names this host does not have.
    """
    if os.geteuid() != 0:
        why = "others would have to pass through your home, and could reach a QEMU that runs with your own rights"
        raise StateError("only root's machines can be used by others", why=why, fix="let root start it")
    record = machines.find(name)
    named = _numbers(who, gone=revoke)
    if not revoke:
        update_allowed(record.path, lambda now: Allowed(now.users | named.users, now.groups | named.groups))
        return []
    if who:
        update_allowed(record.path, lambda now: Allowed(now.users - named.users, now.groups - named.groups))
    else:
        change_allowed(record.path, Allowed())
    return [_still_there(record.path, line) for line in (files.AGENT, files.CONSOLE) if _connected(record.path / line)]


def _names(now: Allowed) -> list[str]:
    return [
        *(_named(pwd.getpwuid, one) for one in sorted(now.users)),
        *(f"@{_named(grp.getgrgid, one)}" for one in sorted(now.groups)),
    ]


def _named(look: Callable[[int], Sequence[object]], number: int) -> str:
    try:
        return str(look(number)[0])
    except KeyError:
        return str(number)


def _numbers(who: Sequence[str], *, gone: bool) -> Allowed:
    """What these names are; a number stands for itself, where it is taken back also that of a user who is gone."""
    users, groups, problems = set(), set(), []
    for name in who:
        try:
            if name.startswith("@"):
                groups.add(grp.getgrgid(int(name[1:])).gr_gid if name[1:].isdecimal() else grp.getgrnam(name[1:]).gr_gid)
            else:
                users.add(pwd.getpwuid(int(name)).pw_uid if name.isdecimal() else pwd.getpwnam(name).pw_uid)
        except KeyError:
            number = name.removeprefix("@")
            if gone and number.isdecimal():
                (groups if name.startswith("@") else users).add(int(number))
                continue
            kind = "group" if name.startswith("@") else "user"
            problems.append(Problem("who", name, f"this host has no such {kind}", "groups are written @GROUP"))
    if problems:
        raise SpecError("it is not clear who is meant", problems=problems)
    return Allowed(frozenset(users), frozenset(groups))


def _connected(path: Path) -> bool:
    """Whether somebody is connected to a socket (source: proc_net_unix(5); state 03 is connected)."""
    rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    return any(row[5] == "03" and row[7] == str(path) for row in rows if len(row) > 7)


def _still_there(directory: Path, line: str) -> str:
    fix = f"tinamou restart {directory.name} cuts it off"
    return f"somebody is connected to {line} of {directory.name} just now, and stays so until they leave; {fix}"
