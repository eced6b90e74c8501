"""The history of one machine's disks as ``snapshots.json`` holds it: disks, snapshots, and what is being changed.

::

    disk0.qcow2     the file the disk began with           ┐ every file below the current one is frozen:
    disk0-1.qcow2   written since the first snapshot       ┘ only merging rewrites it, and never what it reads as
    snapshots.json  this history; replaced whole, never edited in place
    snapshots/N/    what else belongs to snapshot N: the UEFI variable store, the vTPM's state
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from tinamou import late
from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.late import dataclass, field
from tinamou.system.durable import PART, put_in_place
from tinamou.system.plain_file import read_plain

__all__ = ["DiskEntry", "Frozen", "History", "Intent", "Snapshot", "load", "save", "write_part"]

_MOST = 256 << 20
FORMAT = 1


@dataclass(frozen=True)
class DiskEntry:
    """One writable disk: ``device`` is its id in QEMU, ``top`` the file the guest writes to, ``floor`` the lowest file.

    Paths are absolute, or names in the machine's folder. ``gone`` says that the machine has it no more, only snapshots do;
    ``top`` is the newest one's file then.
    """

    device: str
    top: str
    format: str
    floor: str
    floor_format: str
    gone: bool = False


@dataclass(frozen=True)
class Frozen:
    """One disk as it was: its device in QEMU, the frozen file on top (a name in the checkpoint's folder, or a path).

    ``floor`` is the file its machine was made over, which may lie in any folder its user named.
    """

    device: str
    file: str
    format: str
    floor: str = ""


@dataclass(frozen=True)
class Snapshot:
    """One moment of all disks: ``files`` says for each disk which frozen file, with everything below it, holds it.

    ``parent`` is the number of the snapshot the machine was based on, 0 for none; ``created`` in seconds since 1970;
    ``state`` is ``running``, ``paused`` or ``off``; ``schedule`` names the schedule that made it, else empty.
    """

    number: int
    name: str
    files: Mapping[str, str]
    parent: int = 0
    created: float = 0.0
    note: str = ""
    quiesced: bool = False
    state: str = "off"
    schedule: str = ""


@dataclass(frozen=True)
class Intent:
    """What is being changed: ``kind`` and its arguments, plain data."""

    kind: str
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """Everything known about a machine's disks. ``current`` is the snapshot the running state is based on, 0 for none.

    ``flattened`` names the files into which all below them was copied: they rest on the floor, whatever came before them.
    """

    disks: Mapping[str, DiskEntry] = field(default_factory=dict)
    snapshots: tuple[Snapshot, ...] = ()
    current: int = 0
    counter: int = 0
    intent: Intent | None = None
    flattened: tuple[str, ...] = ()

    @property
    def present(self) -> dict[str, DiskEntry]:
        """The disks the machine has, by name."""
        return {name: disk for name, disk in self.disks.items() if not disk.gone}

    def snapshot(self, name: str) -> Snapshot:
        """By name or number. Raises StateError naming the nearest one."""
        for one in self.snapshots:
            if name in (one.name, str(one.number)):
                return one
        import difflib

        names = [one.name for one in self.snapshots]
        near = difflib.get_close_matches(name, names, 1)
        if not names:
            raise StateError(f"there is no snapshot {name}", why="none has been made yet")
        fix = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names[-5:])}"
        raise StateError(f"there is no snapshot {name}", fix=fix)

    def children(self, number: int) -> tuple[Snapshot, ...]:
        """The snapshots taken while the machine was based on this one."""
        return tuple(one for one in self.snapshots if one.parent == number)

    def frozen(self, disk: str) -> frozenset[str]:
        """The files of one disk that a snapshot is."""
        return frozenset(one.files[disk] for one in self.snapshots if disk in one.files)


def load(directory: Path) -> History:
    """The machine's history; an empty one where nothing was ever recorded. Raises StateError when it is damaged."""
    path = directory / files.SNAPSHOTS
    try:
        data = json.loads(read_plain(path, owners={os.geteuid()}, most=_MOST))
        if data["format"] != FORMAT:
            raise StateError(f"{path} was written by another version of tinamou", why=f"format {data['format']}")
        intent = data["intent"]
        return History(
            disks={name: DiskEntry(**disk) for name, disk in data["disks"].items()},
            snapshots=tuple(Snapshot(**one) for one in data["snapshots"]),
            current=data["current"],
            counter=data["counter"],
            intent=Intent(**intent) if intent else None,
            flattened=tuple(data["flattened"]),
        )
    except FileNotFoundError:
        return History()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        fix = f"put back a copy of {path}; the disks' own headers still tell their chains: tinamou check"
        raise StateError(f"the history of snapshots in {directory} is damaged", why=str(error), fix=fix) from error


def save(directory: Path, history: History) -> History:
    """Replace the history as a whole, on stable storage before this returns; gives back what it wrote."""
    put_in_place(directory, [write_part(directory, history)])
    return history


def write_part(directory: Path, history: History) -> str:
    """Write the history beside its place, for `put_in_place`; gives back the name it belongs under."""
    intent = _flat(history.intent) if history.intent else None
    disks = {name: _flat(disk) for name, disk in history.disks.items()}
    lists = {"disks": disks, "snapshots": [_flat(one) for one in history.snapshots], "intent": intent}
    numbers = {"current": history.current, "counter": history.counter, "flattened": history.flattened}
    (directory / (files.SNAPSHOTS + PART)).write_text(
        json.dumps({"format": FORMAT, **lists, **numbers}, separators=(",", ":"))
    )
    return files.SNAPSHOTS


def _flat(one: DiskEntry | Snapshot | Intent) -> dict[str, object]:
    """The fields, not copied: `late.asdict` takes ten times as long, and there may be a thousand snapshots."""
    return {field.name: getattr(one, field.name) for field in late.fields(one)}
