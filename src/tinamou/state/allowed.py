"""Who else may use one of root's machines, and such machines as another user finds them.

``allowed.json`` in the machine's folder says who: ``{"users": [1000], "groups": [44]}``. They get access control lists on
exactly the files and sockets by which the guest is reached, anew at each start; nothing else of the folder, and never
QEMU's monitor: whoever has that has QEMU.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from tinamou import late
from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.late import dataclass
from tinamou.state.record import Record, locked, read
from tinamou.system.acl import READ, READ_WRITE, allow
from tinamou.system.plain_file import read_own
from tinamou.system.replaced import replace_text

__all__ = ["VERBS", "Allowed", "allowed", "apply", "change_allowed", "of_others", "of_root", "refusal", "update_allowed"]

VERBS = ("exec", "cp", "console", "logs", "show")
"""What those who are allowed can do."""

_FILE = "allowed.json"
_MOST = 1 << 20
_LINES = (files.AGENT, files.CONSOLE)
_LOCKS = (f"{files.AGENT}.lock", f"{files.AGENT}.lock.wait", f"{files.CONSOLE}.lock")
"""To take turns with others: a lock needs no right to write, and a file one may write to could fill the disk."""
_READ = (files.RECORD, files.SERIAL_LOG, f"{files.SERIAL_LOG}.1", files.QEMU_LOG, f"{files.QEMU_LOG}.1", *_LOCKS)
_RIGHTS = {**dict.fromkeys(_LINES, READ_WRITE), **dict.fromkeys(_READ, READ)}


@dataclass(frozen=True)
class Allowed:
    """Numbers of users and of groups."""

    users: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()


def allowed(directory: Path) -> Allowed:
    """Who may use the machine of this folder, beside its owner. Raises StateError for a file that is not to be believed."""
    try:
        data = json.loads(read_own(directory / _FILE, most=_MOST))
        return Allowed(*(frozenset(map(_number, data[kind])) for kind in ("users", "groups")))
    except FileNotFoundError:
        return Allowed()
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        fix = f"tinamou allow --revoke {directory.name} begins anew"
        raise StateError(f"who may use {directory.name} cannot be read", why=str(error), fix=fix) from error


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
        raise ValueError(f"{value!r} is no number of a user")
    return value


def change_allowed(directory: Path, now: Allowed) -> None:
    """From now on these may use the machine, and nobody else, whoever it was before. Raises StateError."""
    with locked(directory):
        _write(directory, now)


def update_allowed(directory: Path, change: Callable[[Allowed], Allowed]) -> None:
    """From now on those may use it whom ``change`` makes of those who may; nobody else changes it meanwhile.

    Raises StateError.
    """
    with locked(directory):
        _write(directory, change(allowed(directory)))


def _write(directory: Path, now: Allowed) -> None:
    replace_text(directory / _FILE, json.dumps({"users": sorted(now.users), "groups": sorted(now.groups)}))
    _give(directory, now)


def apply(directory: Path) -> None:
    """Give the files of a machine that is being started the lists they should have. Raises StateError."""
    if (directory / _FILE).exists():
        _give(directory, allowed(directory))


def _give(directory: Path, now: Allowed) -> None:
    try:
        for name in _LOCKS:
            os.close(os.open(directory / name, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        for name, rights in _RIGHTS.items():
            if os.path.lexists(directory / name):
                allow(directory / name, dict.fromkeys(now.users, rights), dict.fromkeys(now.groups, rights))
    except OSError as error:
        fix = "have the machines on a file system with access control lists, such as ext4, XFS or Btrfs"
        raise StateError(f"nobody else can be allowed to use {directory.name}", why=str(error), fix=fix) from error


def of_root(name: str) -> Record | None:
    """The machine of root of that name, where this user is allowed to use it. Raises StateError.

    Its resident is left to root: who speaks to that shares its line with others by a socket in the machine's folder.
    """
    if os.geteuid() == 0 or not name or "/" in name:
        return None
    directory = Path(os.environ.get("TINAMOU_OTHERS") or "/var/lib/tinamou") / "machines" / name
    try:
        record = read(directory, owner=0)
    except StateError as error:
        if isinstance(error.__cause__, PermissionError):
            return None
        raise
    return record and late.replace(record, resident=False)


def of_others(record: Record) -> bool:
    """Whether it is a machine of root's that another user has in hand."""
    return os.stat(record.directory).st_uid != os.geteuid()  # noqa: PTH116


def refusal(record: Record) -> StateError:
    """Why something else than `VERBS` is not done with a machine of root."""
    why = f"you are allowed {', '.join(VERBS)}; the rest needs QEMU's monitor, the machine's key or files that are root's"
    fix = f"tinamou exec {record.name} -- poweroff shuts its guest down; for anything else ask root"
    return StateError(f"{record.name} is root's machine, and this is not to be done with it by others", why=why, fix=fix)
