"""What one look at a machine, or at the host, has seen: frozen data that the checks judge and the balloon is set by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinamou.late import dataclass, field
from tinamou.monitor.balloon import PRESSED
from tinamou.units import Size

__all__ = ["NO_DRIVER", "DiskObservation", "GuestMemory", "Held", "HostObservation", "Observation", "Place"]

NO_DRIVER = "the guest has no balloon driver, or has not loaded it yet"
"""Why a guest that boots, or never will have one, has not told of its memory."""


@dataclass(frozen=True)
class GuestMemory:
    """``size`` is what the machine was started with, ``holds`` what the balloon leaves the guest of it now.

    The rest is what the guest's own kernel says: ``available`` without swapping, ``free``, ``caches`` (of disks). It is
    ``age`` seconds old; all are None where it has said nothing, and ``why`` tells the reason.
    """

    size: Size
    holds: Size
    available: Size | None = None
    free: Size | None = None
    caches: Size | None = None
    swapped_in: Size | None = None
    swapped_out: Size | None = None
    age: float | None = None
    why: str = ""

    @property
    def used(self) -> Size | None:
        """What the guest could not give: all it holds but what is available, its kernel's own memory included."""
        return None if self.available is None else Size(max(0, self.holds - self.available))


@dataclass(frozen=True)
class Held:
    """The host's memory a process has: resident, of that its share (shared pages divided by their users), and swapped."""

    rss: Size
    swap: Size
    pss: Size | None = None


@dataclass(frozen=True)
class Place:
    """A file system: ``device`` tells it from others, ``free`` is what an ordinary process may still write."""

    device: int
    path: str
    free: Size
    total: Size


@dataclass(frozen=True)
class DiskObservation:
    """One disk: what the guest has moved, the files it rests on, top first, and where the top one lies.

    ``allocated`` is what the machine's own files take on the host, ``may_grow`` by how much the top one may still.
    ``status`` is QEMU's: ``ok``, ``failed``, ``nospace``; empty where it was not asked.
    """

    name: str
    read: int = 0
    written: int = 0
    reads: int = 0
    writes: int = 0
    flushes: int = 0
    files: tuple[str, ...] = ()
    readonly: bool = False
    allocated: Size = Size(0)
    may_grow: Size = Size(0)
    place: Place | None = None
    status: str = ""


@dataclass(frozen=True)
class Observation:
    """One machine at one moment.

    ``state`` is QEMU's run state, empty where QEMU did not say it: ``silent`` tells why. ``ended`` says why it ended, where
    that was found out. ``console`` is what its guest printed since it was started, ``uptime`` the seconds since then.
    ``answers`` tells whether the guest's agent does, None where that says nothing: ``unasked`` tells why.
    ``errors`` are failed requests of disks that QEMU told of lately, ``checked`` what the last check of its disks found.
    """

    name: str
    state: str = ""
    silent: str = ""
    ended: str = ""
    floor: Size | None = None
    memory: GuestMemory | None = None
    held: Held | None = None
    disks: tuple[DiskObservation, ...] = ()
    console: str = ""
    uptime: float = 0.0
    answers: bool | None = None
    unasked: str = ""
    errors: tuple[str, ...] = ()
    checked: Mapping[str, Any] | None = None
    check_age: float = 0.0

    @property
    def running(self) -> bool:
        """Whether its QEMU lives."""
        return bool(self.state or self.silent)


@dataclass(frozen=True)
class HostObservation:
    """The host at one moment: its memory, and who holds it.

    ``pressure`` is the share of time in which everything waited for memory over the last 10 s, in per cent, None where the
    kernel does not count it. ``held`` is by machine; ``promised`` what each may still take. ``budget`` is what all machines
    together may hold, None where nobody said; ``needed`` what each must be left, empty where that is not known.
    """

    total: Size = Size(0)
    available: Size = Size(0)
    pressure: float | None = None
    held: Mapping[str, Size] = field(default_factory=dict)
    promised: Mapping[str, Size] = field(default_factory=dict)
    budget: Size | None = None
    needed: Mapping[str, Size] = field(default_factory=dict)

    @property
    def reserve(self) -> Size:
        """What should stay available: a twentieth of all, at least 256 MiB and at most 4 GiB."""
        return Size(min(max(self.total // 20, 256 << 20), 4 << 30))

    @property
    def short(self) -> bool | None:
        """Whether memory should be taken back from machines; None where nothing is known."""
        if not self.total:
            return None
        return self.available < self.reserve or (self.pressure or 0.0) > PRESSED
