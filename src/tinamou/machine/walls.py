"""The walls around everything that runs for one machine: its QEMU, and its helpers."""

from __future__ import annotations

from tinamou.blueprint.plan import Confinement
from tinamou.errors import StateError
from tinamou.late import dataclass
from tinamou.monitor.walls import WallView, look
from tinamou.prepare import helper_processes
from tinamou.prepare.journal import Journal
from tinamou.state.folder import plan_of
from tinamou.state.record import Record

__all__ = ["Walled", "walls_of"]


@dataclass(frozen=True)
class Walled:
    """A process of the machine, and what is around it."""

    name: str
    pid: int
    walls: tuple[WallView, ...]


def walls_of(record: Record) -> list[Walled]:
    """QEMU first. Raises StateError for a machine that does not run, or may not be looked at."""
    if not record.running:
        raise StateError(f"machine {record.name} is not running", fix=f"tinamou start {record.name}; or tinamou plan --why")
    try:
        found = [Walled("QEMU", record.pid, tuple(look(record.pid, plan_of(record).confinement)))]
        for entry in Journal(record.path).open_entries().values():
            process = helper_processes.found(entry) if entry["kind"] == "helper" else None
            if process is not None:
                found.append(Walled(str(entry["name"]), process.pid, _around_helper(process.pid)))
    except OSError as error:
        raise StateError(f"the walls of {record.name} cannot be looked at", why=str(error), fix="try it as root") from error
    return found


def _around_helper(pid: int) -> tuple[WallView, ...]:
    """passt shuts itself off from all but root."""
    try:
        return tuple(look(pid, Confinement(None, None)))
    except PermissionError as error:
        return (WallView("all", False, f"cannot be looked at by this user: {error.strerror}"),)
