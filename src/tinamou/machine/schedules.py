"""Snapshots and checks of a machine at set times: the systemd units that do it, written and removed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tinamou import late
from tinamou.errors import StateError
from tinamou.snapshots.schedule import REPLICA, Schedule, scheduled_units, schedules, units
from tinamou.state.record import Record
from tinamou.system import systemd
from tinamou.system.paths import unit_dir
from tinamou.system.unit_files import removed, systemctl, written

if TYPE_CHECKING:
    from tinamou.spec import MachineSpec

__all__ = ["refuse_diskless", "remove_replication", "remove_schedules", "rename_schedules", "replicate", "write_schedule"]


def refuse_diskless(record: Record) -> None:
    """Raises StateError for a machine that has no disk a snapshot could be taken of."""
    from tinamou.spec import load_spec
    from tinamou.state.folder import image_of

    if not image_of(record).disk and not load_spec(record.spec).disk:
        why = f"its image {record.image} lives in memory, and it was given no disk"
        raise StateError(f"{record.name} has no disks", why=why, fix=f"tinamou disk add {record.name} size=10G")


def write_schedule(schedule: Schedule) -> list[Path]:
    """Write a schedule's unit files and have systemd take them up where it runs; the paths written. Raises OSError."""
    paths = written(units(schedule, systemd.command(), systemd.environment()))
    systemctl("enable", "--now", f"{schedule.unit}.timer")
    return paths


def replicate(record: Record, spec: MachineSpec) -> None:
    """Have it replicated as it is described; nothing changes where it is not described so. Raises OSError."""
    if spec.replicate.to:
        write_schedule(Schedule(record.name, spec.replicate.every, 0, to=spec.replicate.to))


def remove_schedules(machine: str) -> list[Path]:
    """Stop and remove every schedule of a machine; the paths removed."""
    return _removed(scheduled_units(unit_dir(), machine))


def remove_replication(machine: str) -> list[Path]:
    """The same of the one that replicates it."""
    return _removed([path for path in scheduled_units(unit_dir(), machine) if path.stem.endswith(f"-{REPLICA}")])


def _removed(gone: list[Path]) -> list[Path]:
    for path in gone:
        if path.suffix == ".timer":
            systemctl("disable", "--now", path.name)
    return removed(gone)


def rename_schedules(old: str, new: str) -> None:
    """Have a machine's schedules be about it under its new name. Raises OSError."""
    there = schedules(unit_dir(), old)
    for one in there:
        write_schedule(late.replace(one, machine=new))
    remove_schedules(old)
