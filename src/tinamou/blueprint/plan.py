"""The finished plan, and the contributions it is collected from."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.blueprint.element import Element, Flag, Note, Why
from tinamou.blueprint.steps import Step
from tinamou.late import dataclass, field
from tinamou.units import CpuSet


@dataclass(frozen=True)
class Contribution:
    """What one part adds to the plan."""

    elements: tuple[Element, ...] = ()
    flags: tuple[Flag, ...] = ()
    steps: tuple[Step, ...] = ()
    notes: tuple[Note, ...] = ()

    @staticmethod
    def merge(contributions: list[Contribution]) -> Contribution:
        """All contributions in order, as one."""
        return Contribution(
            elements=tuple(e for c in contributions for e in c.elements),
            flags=tuple(f for c in contributions for f in c.flags),
            steps=tuple(s for c in contributions for s in c.steps),
            notes=tuple(n for c in contributions for n in c.notes),
        )


@dataclass(frozen=True)
class Wall:
    """One thing that keeps a process from the rest of the host: whether it stands, and how, or why not."""

    name: str
    stands: bool
    why: str


@dataclass(frozen=True)
class Calls:
    """A group of system calls that QEMU is allowed (system/syscalls.py has them by name), and why this machine needs it."""

    group: str
    why: Why


@dataclass(frozen=True)
class Confinement:
    """How little the QEMU process may do: the identity it runs under, the extra groups it needs, the bytes it may lock.

    ``files`` is how many it may have open at once, ``file_size`` how many bytes each may be made (None: any), ``tasks`` is
    how many threads it may have in a namespace of users, where no control group says so. ``walls`` say in words what holds
    it in. ``namespaces`` are its own, ``landlock`` what that refuses of files, network and scopes (masks of landlock(7)).
    Where either keeps it from files, ``reads`` and ``writes`` are what it sees beyond the system's programs and libraries,
    and ``devices`` what it uses beyond those anybody may. ``calls`` are all the system calls it may make; where there are
    none, the filter that is its own is the only one. ``profile`` is the AppArmor profile it enters, ``label`` the
    SELinux context, each empty for none.
    ``own_cores``: nobody else's thread runs on a core while one of QEMU's does.
    """

    uid: int | None
    gid: int | None
    groups: tuple[int, ...] = ()
    locked: int | None = None
    files: int | None = None
    file_size: int | None = None
    tasks: int | None = None
    walls: tuple[Wall, ...] = ()
    namespaces: tuple[str, ...] = ()
    landlock: tuple[int, int, int] = (0, 0, 0)
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    calls: tuple[Calls, ...] = ()
    profile: str = ""
    label: str = ""
    own_cores: bool = False


@dataclass(frozen=True)
class Pinning:
    """Which host CPUs each thread of QEMU runs on: one entry per vCPU, the emulator, the I/O threads by object id.

    ``priority`` is the vCPUs' real-time priority (SCHED_FIFO), 0 for none.
    """

    vcpus: tuple[CpuSet, ...]
    emulator: CpuSet
    iothreads: Mapping[str, CpuSet] = field(default_factory=dict)
    priority: int = 0


@dataclass(frozen=True)
class Plan:
    """Everything needed to start one machine, decided: nothing after this decides, it only spells and does."""

    name: str
    arch: str
    binary: str
    accel: str
    machine_type: str
    elements: tuple[Element, ...]
    flags: tuple[Flag, ...]
    steps: tuple[Step, ...]
    notes: tuple[Note, ...] = ()
    confinement: Confinement = field(default_factory=lambda: Confinement(None, None))
    ssh_port: int | None = None
    pinning: Pinning | None = None
