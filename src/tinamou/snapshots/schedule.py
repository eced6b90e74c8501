"""Snapshots and checks at set times, run by systemd timers that are written here, and how many of them are kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tinamou.errors import StateError
from tinamou.late import dataclass
from tinamou.snapshots.history import History, Snapshot
from tinamou.system import systemd

__all__ = ["Schedule", "parse_every", "scheduled_units", "schedules", "surplus", "units"]

_WORDS = {"hourly": "hourly", "daily": "daily", "weekly": "weekly", "monthly": "monthly"}
_EVERY = re.compile(r"(\d+)\s*(m|min|h|hours?)")


_TIMER = re.compile(r"^Description=.*, (.+) \(tinamou\)$", re.MULTILINE)
_KEEP = re.compile(r" --keep (\d+)")
_TO = re.compile(r"\breplicate\S* \S+ (\S+)")
REPLICA = "replica"


@dataclass(frozen=True)
class Schedule:
    """``every`` as the user wrote it (``15min``, ``hourly``); ``keep`` snapshots stay, 0 for a schedule of checks.

    With ``to`` it is one of replicas to that host.
    """

    machine: str
    every: str
    keep: int
    quiesce: bool = False
    to: str = ""

    @property
    def label(self) -> str:
        """What its snapshots and units are known by."""
        if self.to:
            return REPLICA
        return re.sub(r"[^a-z0-9]", "", self.every.lower()) if self.keep else "check"

    @property
    def unit(self) -> str:
        """The stem of its unit files."""
        return f"tinamou-{self.machine}-{self.label}"


def parse_every(text: str) -> str:
    """``15min`` → ``*:0/15``, ``2h`` → ``0/2:00``: systemd's calendar notation (systemd.time(7)). Raises StateError."""
    word = text.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    match = _EVERY.fullmatch(word)
    count, limit = (int(match[1]), 60 if match[2].startswith("m") else 24) if match else (0, 0)
    if not match or not 0 < count < limit or limit % count:
        fix = "hourly, daily, weekly, monthly, minutes that divide an hour (15min) or hours that divide a day (6h)"
        raise StateError(f"{text!r} is no time a schedule can repeat at", fix=fix)
    return f"*:0/{count}" if limit == 60 else f"0/{count}:00"


def units(schedule: Schedule, command: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The two unit files of a schedule, by file name; ``command`` starts tinamou, ``environment`` is what it needs."""
    words = [*command, "snapshot", "scheduled", schedule.machine, "--label", schedule.label, "--keep", str(schedule.keep)]
    words += ["--quiesce"] if schedule.quiesce else []
    if not schedule.keep:
        words = [*command, "check", schedule.machine]
    if schedule.to:
        words = [*command, "replicate", schedule.machine, schedule.to]
    what = f"Snapshots of {schedule.machine}" if schedule.keep else f"Check of the disks of {schedule.machine}"
    service = (
        f"[Unit]\nDescription={what} (tinamou)\n\n[Service]\nType=oneshot\n"
        f"{systemd.variables(environment)}{systemd.exec_start(words)}Nice=10\nIOSchedulingClass=idle\n"
    )
    timer = (
        f"[Unit]\nDescription={what}, {schedule.every} (tinamou)\n\n[Timer]\nOnCalendar={parse_every(schedule.every)}\n"
        "Persistent=true\nRandomizedDelaySec=30\n\n[Install]\nWantedBy=timers.target\n"
    )
    return {f"{schedule.unit}.service": service, f"{schedule.unit}.timer": timer}


def scheduled_units(folder: Path, machine: str) -> list[Path]:
    """The unit files of a machine's schedules."""
    pattern = re.compile(rf"tinamou-{re.escape(machine)}-[a-z0-9]+\.(?:service|timer)")
    return sorted(path for path in folder.glob("tinamou-*") if pattern.fullmatch(path.name))


def schedules(folder: Path, machine: str) -> list[Schedule]:
    """The schedules of a machine, as their unit files say; one that somebody has written anew is left out."""
    found = []
    for path in scheduled_units(folder, machine):
        timer = _TIMER.search(path.read_text()) if path.suffix == ".timer" else None
        if timer is not None:
            service = path.with_suffix(".service")
            words = service.read_text() if service.exists() else ""
            keep = _KEEP.search(words)
            to = _TO.search(words)
            quiesce = " --quiesce" in words
            found.append(Schedule(machine, timer[1], int(keep[1]) if keep else 0, quiesce, to[1] if to else ""))
    return found


def surplus(history: History, label: str, keep: int) -> tuple[Snapshot, ...]:
    """The snapshots of a schedule beyond the newest ``keep``."""
    mine = sorted((one for one in history.snapshots if one.schedule == label), key=lambda one: one.number)
    return tuple(mine[: max(0, len(mine) - keep)])
