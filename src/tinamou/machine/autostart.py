"""Machines that start with their host: what was asked for, kept in the machine's folder, and the units that do it.

One template unit serves all machines; what differs is a drop-in of each one's own instance. The unit's process is
`tinamou.machine.attending`.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

from tinamou import late
from tinamou.errors import Problem, StateError
from tinamou.facts import files
from tinamou.late import dataclass
from tinamou.monitor.states import GRACE_SECONDS
from tinamou.state import machines
from tinamou.state.record import Record, locked
from tinamou.system import systemd
from tinamou.system.paths import unit_dir
from tinamou.system.plain_file import read_own
from tinamou.system.replaced import replace_text
from tinamou.system.signals import held_back
from tinamou.system.unit_files import put, removed, systemctl, taken

__all__ = ["Autostart", "Restart", "instance", "renaming", "settings_of", "template", "turn_off", "turn_on"]

Restart = Literal["no", "on-failure", "always"]
_MOST = 1 << 16
_SAVING_SECONDS = 900
"""How long a machine may take to be saved when the host goes down."""


@dataclass(frozen=True)
class Autostart:
    """How a machine starts with its host.

    After the machines ``after`` have, and ``delay`` seconds; ``grace`` seconds are its guest's to shut down when the host
    does, unless it is to ``suspend``. ``restart`` says when it is started again after it has ended by itself.
    """

    after: tuple[str, ...] = ()
    delay: float = 0.0
    suspend: bool = False
    restart: Restart = "no"
    grace: float = GRACE_SECONDS


def instance(name: str) -> str:
    """The unit of a machine."""
    return f"tinamou@{name}.service"


def template() -> str:
    """The unit of all machines (source: systemd.unit(5), systemd.service(5)).

    Only the process in it is told to end, for it ends the machine in order; should it be killed, the machine runs on, and
    the next one takes it up.
    """
    target, network = ("multi-user.target", "network-online.target") if os.geteuid() == 0 else ("default.target", "")
    after = f"Wants={network}\nAfter={network}\n" if network else ""
    words = [*systemd.command(), "autostart", "--attend"]
    return (
        f"[Unit]\nDescription=Virtual machine %i (tinamou)\n{after}\n"
        f"[Service]\nType=notify\nNotifyAccess=main\n{systemd.variables(systemd.environment())}"
        f"{systemd.exec_start(words).rstrip()} %i\nKillMode=process\nTimeoutStartSec=infinity\n"
        f"Restart=on-abnormal\nRestartSec=5\n\n[Install]\nWantedBy={target}\n"
    )


def _drop_in(settings: Autostart) -> str:
    """What is the instance's own. A unit stops before those it comes after: systemd orders both by the same line."""
    seconds = _SAVING_SECONDS if settings.suspend else settings.grace + 60
    after = f"[Unit]\nAfter={' '.join(map(instance, settings.after))}\n\n" if settings.after else ""
    return f"{after}[Service]\nTimeoutStopSec={seconds:g}\n"


def settings_of(record: Record) -> Autostart | None:
    """How it starts with the host; None where it does not. Raises StateError for what cannot be read."""
    path = record.file(files.AUTOSTART)
    try:
        data = json.loads(read_own(path, most=_MOST))
        found = Autostart(**{**data, "after": tuple(data["after"])})
        if found.restart not in get_args(Restart):
            raise ValueError(found.restart)
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        fix = f"tinamou autostart {record.name} says it anew"
        raise StateError(
            f"how {record.name} starts with the host cannot be read", why=f"{path}: {error}", fix=fix
        ) from error


def turn_on(record: Record, settings: Autostart) -> list[Path]:
    """Have it start with the host from now on, in that way alone; the unit files. Raises StateError, OSError."""
    _check(record, settings)
    return _put(record, settings)


def _put(record: Record, settings: Autostart) -> list[Path]:
    link = _link(record.name)
    with locked(record.path), held_back():
        replace_text(record.file(files.AUTOSTART), json.dumps(late.asdict(settings)))
        paths = put({"tinamou@.service": template(), **_own(record.name, settings)})
        link.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(link):
            link.symlink_to("../tinamou@.service")  # what systemctl enable does, also where no systemd runs
    systemctl("daemon-reload")
    return [*paths, link]


def turn_off(record: Record) -> list[Path]:
    """It starts with the host no more; the files that were removed. It runs on where it runs."""
    with held_back():
        gone = taken([*map(unit_dir().joinpath, _own(record.name, Autostart())), _link(record.name)])
        record.file(files.AUTOSTART).unlink(missing_ok=True)
        if gone and not any(unit_dir().glob("*.target.wants/tinamou@*.service")):
            gone += taken([unit_dir() / "tinamou@.service"])
    if gone:
        systemctl("daemon-reload")
    return gone


def renaming(old: str, record: Record) -> list[Callable[[], object]]:
    """What makes of the machine ``old`` that ``record`` is by now: its units follow, and those of what comes after it.

    None of it depends on another: what one machine's settings are keeps no other's from being changed. The order of all is
    what it was, and is not looked at again.
    """
    gone = [*map(unit_dir().joinpath, _own(old, Autostart())), _link(old)]
    others = [one for one in machines.machines() if one.name != record.name]
    return [
        lambda: _follow(record, old, record.name),
        lambda: removed(gone),
        *(functools.partial(_follow, one, old, record.name) for one in others),
    ]


def _follow(record: Record, old: str, new: str) -> None:
    """Write a machine's units where they are to name another one, or itself, by its new name."""
    if (settings := settings_of(record)) is not None and (record.name == new or old in settings.after):
        _put(record, late.replace(settings, after=tuple(new if name == old else name for name in settings.after)))


def _own(name: str, settings: Autostart) -> dict[str, str]:
    return {f"{instance(name)}.d/10-tinamou.conf": _drop_in(settings)}


def _link(name: str) -> Path:
    target = "multi-user.target" if os.geteuid() == 0 else "default.target"
    return unit_dir() / f"{target}.wants" / instance(name)


def _others(name: str) -> Iterator[tuple[Record, Autostart]]:
    for record in machines.machines():
        if record.name != name and (settings := settings_of(record)) is not None:
            yield record, settings


def _check(record: Record, settings: Autostart) -> None:
    """Raises StateError for a throw-away machine, and for an order that cannot be."""
    if record.ephemeral:
        raise StateError(f"{record.name} is thrown away when it ends", fix="make one that stays: tinamou run -d")
    others = {one.name: theirs.after for one, theirs in _others(record.name)}
    known = {one.name for one in machines.machines()}
    problems = [
        Problem("--after", name, "there is no such machine", "tinamou ls") for name in settings.after if name not in known
    ]
    problems += [
        Problem("--after", name, f"it comes after {record.name}", "one of them has to be first")
        for name in settings.after
        if record.name in _before(name, others)
    ]
    if problems:
        raise StateError(f"{record.name} cannot be started in that order", problems=problems)


def _before(name: str, after: dict[str, tuple[str, ...]]) -> set[str]:
    """It, and all that start before it."""
    found, left = set[str](), [name]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += after.get(one, ())
    return found
