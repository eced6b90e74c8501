"""Who holds what of the host, read from the journals of all machines and the ledger; and what is left to be repaired."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tinamou.errors import StateError
from tinamou.late import dataclass
from tinamou.machine.reconcile import reconcile
from tinamou.prepare import helper_processes
from tinamou.prepare.journal import Entry, Journal
from tinamou.state import ledger, machines
from tinamou.state.record import read
from tinamou.system.plain_file import place_fault
from tinamou.units import Size

__all__ = ["Holding", "holdings", "repair", "reports"]


@dataclass(frozen=True)
class Holding:
    """One thing a machine has of the host: ``kind`` as in its journal (or ``process``, ``files``), ``what`` in words, and
    whether the machine still runs."""

    machine: str
    kind: str
    what: str
    running: bool


def holdings() -> list[Holding]:
    """Everything that was taken and not given back, machine by machine; those of other state directories as well.

    Beside the receipt: the machine's own process, and the files it keeps.
    """
    others = sorted(Path(place) for place in ledger.look().holders())
    found: list[Holding] = []
    for folder in dict.fromkeys([*machines.folders(), *others]):
        try:
            found += _of(folder)
        except StateError as error:
            found.append(Holding(str(folder), "unknown", f"{error.what}: {error.why}", running=False))
    return found


def _of(folder: Path) -> Iterator[Holding]:
    if folder.parent != machines.machines_dir() and os.path.lexists(folder) and (wrong := place_fault(folder)):
        yield Holding(str(folder), "ledger", f"{wrong}: it is left alone", running=False)
        return
    if not folder.is_dir():
        gone = "its folder is gone; tinamou host repair gives back what it held"
        yield Holding(str(folder), "ledger", gone, running=False)
        return
    record = read(folder)
    alive = record is not None and (record.running or record.owned)
    if record is not None and record.running:
        user = f", user {record.uid}" if record.uid is not None else ""
        yield Holding(folder.name, "process", f"QEMU, process {record.pid}{user}", alive)
    for entry in Journal(folder).open_entries().values():
        yield Holding(folder.name, str(entry["kind"]), _described(entry), alive)
    if record is not None:
        yield Holding(folder.name, "files", f"{_on_disk(folder).mib} MiB in {folder}", alive)


def _on_disk(folder: Path) -> Size:
    """What the files below a folder take on disk, holes left out."""
    taken = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            taken += path.lstat().st_blocks * 512
    return Size(taken)


def _described(entry: Entry) -> str:
    """One thing in words; of a kind nobody describes, what the journal says."""
    kind = str(entry["kind"])
    if kind == "hugepages":
        where = "any node" if entry["node"] is None else f"node {entry['node']}"
        return f"{entry['count']} pages of {Size(int(str(entry['page'])))} on {where}"
    if kind == "helper":
        return _helper(entry)
    if kind == "pci":
        devices = entry["devices"]
        return ", ".join(map(str, devices)) if isinstance(devices, list) else str(devices)
    if kind == "cgroup":
        places = entry["places"]
        return ", ".join(dict.fromkeys(map(str, places))) if isinstance(places, list) else str(places)
    words = {
        "cpus": "{cpus}",
        "value": "{path}",
        "link": "interface {name}",
        "usb": "device in USB port {port}",
        "mdev": "{part}",
        "frames": "{path}",
        "lent": "{path}, which user {user} may open",
        "vf": "virtual function {index} of {interface}",
        "rules": "packet filter of {name}",
        "ovs-port": "port {name} of Open vSwitch bridge {bridge}",
        "network": "network {network}, as {member}",
    }
    rest = {key: value for key, value in entry.items() if key not in ("took", "kind", "machine")}
    return words[kind].format(**entry) if kind in words else ", ".join(f"{key} {value}" for key, value in rest.items())


def _helper(entry: Entry) -> str:
    process = helper_processes.found(entry)
    return f"{entry['name']}, " + (f"process {process.pid}" if process else "which has ended")


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
