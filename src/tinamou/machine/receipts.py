"""Who holds what of the host, read from the journals of all machines and the ledger; and what is left to be repaired."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinamou.machine.reconcile import reconcile
from tinamou.prepare.journal import Entry, Journal
from tinamou.state import ledger, machines
from tinamou.state.record import read

__all__ = ["Holding", "holdings", "repair", "reports"]


@dataclass(frozen=True, slots=True)
class Holding:
    """One thing a machine has of the host: ``kind`` as in its journal, ``what`` in words, and whether it still runs."""

    machine: str
    kind: str
    what: str
    running: bool


def holdings() -> list[Holding]:
    """Everything that was taken and not given back, machine by machine; those of other state directories as well."""
    folders = [path for path in sorted(machines.machines_dir().iterdir()) if path.is_dir()]
    others = sorted(Path(place) for place in ledger.look().holders())
    found = []
    for folder in dict.fromkeys([*folders, *others]):
        record = read(folder) if folder.is_dir() else None
        alive = record is not None and (record.running or record.owned)
        entries = Journal(folder).open_entries().values()
        found += [Holding(folder.name, str(entry["kind"]), _described(entry), alive) for entry in entries]
        if not folder.is_dir():
            gone = "its folder is gone; tinamou host repair gives back what it held"
            found.append(Holding(str(folder), "ledger", gone, running=False))
    return found


def _described(entry: Entry) -> str:
    kind = entry["kind"]
    if kind == "hugepages":
        where = "any node" if entry["node"] is None else f"node {entry['node']}"
        return f"{entry['count']} pages of {int(str(entry['page'])) >> 20}M on {where}"
    rest = {key: value for key, value in entry.items() if key not in ("took", "kind", "machine")}
    return ", ".join(str(value) if len(rest) == 1 else f"{key} {value}" for key, value in rest.items())


def reports() -> list[str]:
    """What could not be given back because someone else changed it."""
    return ledger.look().reports


def repair() -> list[str]:
    """Gives back whatever no living machine holds, and hands over what is only to be reported. One sentence each."""
    done = reconcile()
    if ledger.path().exists():
        with ledger.edit() as held:
            done += held.reports
            held.reports.clear()
    return done
