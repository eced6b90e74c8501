"""What a reader of a foreign format returns: settings as plain data, the disks named, and a note on every difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tinamou.late import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RANKS", "Disk", "Draft", "Note", "Rank"]

Rank = Literal["lost", "check", "changed", "done"]

RANKS: tuple[Rank, ...] = ("lost", "check", "changed", "done")
"""What a note costs, dearest first: the machine lacks something; somebody must look or act; it is done another, better way;
tinamou does it by itself."""


_LONGEST = 160
"""Characters of a value that is ``done`` on one line."""


class Note(NamedTuple):
    """One difference: its rank, the option or element it is about, the value there, the reason, what to do."""

    rank: Rank
    where: str
    value: str
    reason: str
    fix: str = ""

    def __str__(self) -> str:
        value = self.value
        if self.rank == "done" and len(value) > _LONGEST:
            value = f"{value[:_LONGEST]}… ({len(value)} characters, all of them with --json)"
        shown = f"{self.where} {value}".strip()
        line = f"{self.rank:<8}{shown}: {self.reason}" + (f" — {self.fix}" if self.fix else "")
        # What a source says must not move the cursor of whoever reads it.
        return line if line.isprintable() else "".join(one if one.isprintable() else "�" for one in line)


@dataclass
class Disk:
    """One disk or disc of the source: its file as the source names it, or the size of a new one; and how it is attached.

    ``options`` are fields of ``[[disk]]``; ``order`` is its place among what is booted from, lowest first.
    """

    where: str
    file: str = ""
    size: str = ""
    format: str = ""
    cdrom: bool = False
    order: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    discards: str = ""
    """Why what the guest wrote to it was thrown away, in the source's words; empty where it was kept."""
    moved: str = ""
    """The controller it sat on, where it is on virtio here and its guest may look for it elsewhere."""
    part: tuple[int, int] | None = None
    """Where it lies inside ``file``, as offset and length in bytes: a disk of an OVA."""
    member: str = ""
    """Its name inside ``file``, where it does not lie there as it is: a disk of a backup, to be unpacked."""


@dataclass
class Draft:
    """A machine while it is read. ``whole`` is false where the source is only a piece of one, such as two options.

    ``confined``: the files named must lie in the folder of the source, which may come from anywhere.
    """

    source: str
    machine: dict[str, Any] = field(default_factory=dict)
    disks: list[Disk] = field(default_factory=list)
    nets: list[dict[str, Any]] | None = None
    notes: list[Note] = field(default_factory=list)
    whole: bool = True
    confined: bool = False
    vouched: Callable[[], None] | None = None
    """Compares what the source says of its own files, where that is still to be done. Raises ImageError."""

    def put(self, path: str, value: object) -> None:
        """Set one field, ``cpu.count``."""
        *tables, last = path.split(".")
        node = self.machine
        for name in tables:
            node = node.setdefault(name, {})
        node[last] = value

    def get(self, path: str) -> Any:
        """A field that was put before, None where it was not."""
        node: Any = self.machine
        for name in path.split("."):
            node = node.get(name, {}) if isinstance(node, dict) else {}
        return None if node == {} else node

    def append(self, path: str, value: object) -> None:
        """Add to a list of the machine."""
        self.machine.setdefault(path, []).append(value)

    def net(self, **settings: object) -> dict[str, Any]:
        """Add a network interface."""
        self.nets = self.nets or []
        self.nets.append(dict(settings))
        return self.nets[-1]

    def note(self, rank: Rank, where: str, value: str, reason: str, fix: str = "") -> None:
        """Add a note of any rank."""
        self.notes.append(Note(rank, where, value, reason, fix))

    def lost(self, where: str, value: str, reason: str, fix: str = "") -> None:
        """Note what the machine lacks."""
        self.notes.append(Note("lost", where, value, reason, fix))

    def check(self, where: str, value: str, reason: str, fix: str = "") -> None:
        """Note what somebody must look at."""
        self.notes.append(Note("check", where, value, reason, fix))

    def changed(self, where: str, value: str, reason: str, fix: str = "") -> None:
        """Note what is done in another way."""
        self.notes.append(Note("changed", where, value, reason, fix))

    def done(self, where: str, value: str, reason: str, fix: str = "") -> None:
        """Note what tinamou does by itself."""
        self.notes.append(Note("done", where, value, reason, fix))
