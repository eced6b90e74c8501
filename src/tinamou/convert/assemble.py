"""From a draft and what is known of its files to one machine: which disk is its image, and what the rest becomes.

Whatever `spec.load_spec` would not take is left out with a note that says so: what comes out always loads.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinamou.convert.result import RANKS, Disk, Draft, Note
from tinamou.errors import SpecError
from tinamou.late import dataclass, field
from tinamou.spec import MachineSpec, load_spec

__all__ = ["Converted", "Placed", "Seen", "assemble"]

_ROUNDS = 8
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True)
class Seen:
    """What is known of a file the source names: where it is on this host, and what is in it where it is there."""

    path: str
    exists: bool = True
    format: str = ""
    boots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Placed:
    """A disk and the field of the machine that names it: ``image``, ``disk[0].path``; whether its file is here.

    ``number`` is its place among the source's disks, from 0, discs left out.
    """

    disk: Disk
    field: str
    here: bool = True
    number: int = 0


@dataclass
class Converted:
    """The machine, the disks it names, and the notes, dearest first."""

    source: str
    machine: dict[str, Any]
    disks: list[Placed] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    spec: MachineSpec | None = None
    """The machine as it loads."""
    vouched: Callable[[], None] | None = None
    """As a draft has it."""


def assemble(draft: Draft, seen: Mapping[str, Seen]) -> Converted:
    """The machine of a draft; ``seen`` knows the files by the names the draft has for them."""
    _direct(draft)
    first = _first(draft, seen)
    hard = [id(disk) for disk in draft.disks if not disk.cdrom]
    numbers = {one: number for number, one in enumerate(hard)}

    def at(disk: Disk, field: str) -> Placed:
        return Placed(disk, field, _known(disk, seen).exists, numbers.get(id(disk), 0))

    placed = [at(first, "image")] if first else []
    machine: dict[str, Any] = {key: draft.machine[key] for key in ("name", "arch", "accel") if key in draft.machine}
    if image := _image(draft, first, seen):
        machine["image"] = image
    machine |= {key: value for key, value in draft.machine.items() if key not in machine}
    rest = [disk for disk in draft.disks if disk is not first]
    if rest:
        machine["disk"] = [_table(disk, seen) for disk in rest]
        named = [(place, disk) for place, disk in enumerate(rest) if "path" in machine["disk"][place]]
        placed += [at(disk, f"disk[{place}].path") for place, disk in named]
    if draft.nets is not None:
        machine["net"] = draft.nets
    _order(draft, machine, first, rest, seen)
    _discarding(draft, first)
    spec = _load(draft, machine)
    counted = _counted(draft.notes)
    notes = [note for rank in RANKS for note in counted if note.rank == rank]
    return Converted(draft.source, machine, placed, notes, spec, draft.vouched)


def _counted(notes: Sequence[Note]) -> list[Note]:
    """Each note once, with how often where it is the same of several things."""
    often = Counter(notes)
    return [one._replace(value=f"{one.value} (×{count})".strip()) if count > 1 else one for one, count in often.items()]


def _discarding(draft: Draft, first: Disk | None) -> None:
    """Disks whose writes were thrown away: true of the image in another way, of no other disk."""
    for disk in draft.disks:
        if disk.discards and disk is first:
            reason = "what the guest writes goes into a layer of the machine's own: gone with a throw-away machine alone"
            draft.changed(disk.where, disk.discards, reason, "start it with tinamou run, without --detach")
        elif disk.discards:
            reason = f"what the guest wrote was thrown away; {disk.file or 'the disk'} is written here"
            draft.lost(disk.where, disk.discards, reason, "set readonly = true, or name a layer: qemu-img create -b")


def _direct(draft: Draft) -> None:
    """A kernel that is given starts without firmware: what the source said of that goes."""
    boot = draft.machine.get("boot", {})
    if boot.get("kernel") and (there := {key: boot.pop(key) for key in ("firmware", "secure") if key in boot}):
        shown = ", ".join(f"{key} = {value}" for key, value in there.items())
        reason = "a kernel that is given is started directly: no firmware runs, and nothing measures or checks it"
        draft.lost("boot", shown, reason, "install the kernel on a disk, and set firmware")


def _known(disk: Disk, seen: Mapping[str, Seen]) -> Seen:
    found = seen.get(disk.file)
    return Seen(disk.file, exists=not disk.size) if found is None else found


def _new(disk: Disk, seen: Mapping[str, Seen]) -> bool:
    return bool(disk.size) and (not disk.file or not _known(disk, seen).exists)


def _first(draft: Draft, seen: Mapping[str, Seen]) -> Disk | None:
    """The disk the machine starts from, which is its image."""
    if draft.get("boot.kernel"):
        return None
    disks = sorted(draft.disks, key=lambda one: (one.order is None, one.order or 0, one.cdrom))
    there = [disk for disk in disks if not _new(disk, seen)]
    sure = [disk for disk in there if _known(disk, seen).boots or not _known(disk, seen).format]
    # Firmware passes over what does not start; a disk something was installed on is the machine, whatever lies in the drive.
    found = next(iter([*(disk for disk in sure if not disk.cdrom), *sure, *there]), None)
    if found and found not in sure:
        draft.check(found.where, found.file, "no boot loader was found in it", "name another image, or boot.kernel")
    for disc in disks[: disks.index(found)] if found and not found.cdrom else ():
        if disc.cdrom and disc.order is not None:
            reason = "the disc was tried before the disk; here the disk is what starts"
            draft.changed(disc.where, disc.file, reason, "set boot.order to start from the disc")
    return found


def _image(draft: Draft, first: Disk | None, seen: Mapping[str, Seen]) -> str:
    if draft.get("boot.kernel"):
        return "none"
    if first is None:
        what = "there is no disk to start from" if draft.whole else "these options name no disk"
        draft.check("image", "tiny", f"{what}: tinamou's own tiny guest takes that place", "set image = …")
        return ""
    if not first.cdrom:
        reason = "the guest writes to a layer of the machine's own; the file stays as it is, and many machines can share it"
        draft.changed(first.where, first.file, reason)
    for key, value in first.options.items():
        if key == "readonly":
            draft.done(first.where, f"{key} = {value}", "an image is never written to")
        elif key != "interface":
            draft.lost(first.where, f"{key} = {value}", "the image's disk has no such setting", "disks of [[disk]] have")
        else:
            draft.changed(first.where, f"{key} = {value}", "the image's disk is a virtio disk")
    return _known(first, seen).path


def _table(disk: Disk, seen: Mapping[str, Seen]) -> dict[str, Any]:
    table: dict[str, Any] = {"size": disk.size} if _new(disk, seen) else {"path": _known(disk, seen).path}
    if disk.cdrom:
        return {**table, "interface": "cdrom"}
    if disk.format and (disk.format != "qcow2" or "path" not in table):
        table["format"] = disk.format
    if table.get("format") not in (None, "qcow2", "raw") and "size" in table:
        del table["format"]
    return table | disk.options


def _order(
    draft: Draft, machine: dict[str, Any], first: Disk | None, rest: Sequence[Disk], seen: Mapping[str, Seen]
) -> None:
    """A disc to install from comes after the disk it installs on: the empty disk is passed over, the full one starts."""
    hard = [number for number, disk in enumerate(rest, 1) if not disk.cdrom]
    if first is None or not first.cdrom or not hard:
        return
    machine.setdefault("boot", {})["order"] = f"disk{hard[0]},disk0"
    reason = "the disk is tried first: while it is empty the disc starts, once the system is on it the system does"
    draft.changed(first.where, first.file, reason, "take the image away when it is no longer needed")


def _load(draft: Draft, machine: dict[str, Any]) -> MachineSpec:
    """Take out what cannot be, until the machine loads."""
    for _ in range(_ROUNDS):
        try:
            return load_spec(machine)
        except SpecError as error:
            for problem in error.problems:
                if _remove(machine, problem.path):
                    shown = "" if problem.value is None else str(problem.value)
                    draft.lost(problem.path, shown, problem.reason, problem.fix)
    return load_spec(machine)


def _remove(machine: dict[str, Any], path: str) -> bool:
    steps: list[str | int] = [name or int(number) for name, number in _STEP.findall(path)]
    node: Any = machine
    parents: list[tuple[Any, str | int]] = []
    for step in steps:
        parents.append((node, step))
        inside = (
            step in node if isinstance(node, dict) else isinstance(node, list) and isinstance(step, int) and step < len(node)
        )
        if not inside:
            break
        node = node[step]
    for at in reversed(range(len(parents))):
        holder, step = parents[at]
        if _has(holder, step):
            del holder[step]
            if at and holder == {} and isinstance(parents[at - 1][0], dict):
                del parents[at - 1][0][parents[at - 1][1]]  # a table of nothing but that
            return True
    return False


def _has(holder: Any, step: str | int) -> bool:
    return step in holder if isinstance(holder, dict) else isinstance(step, int) and step < len(holder)
