"""What one QEMU binary offers, from its own schema; the only place that compares versions or asks whether it can do X."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from tinamou.late import dataclass, field

BACKEND_KINDS = ("aio", "blockdev", "chardev", "display", "migration", "transport")
"""What ``QemuFacts.backends`` is keyed by."""

_SUBCLUSTERS = (10, 0)
"""The oldest version that was seen to stream into a qcow2 with subclusters (extended_l2); 7.2 can end doing it."""


def streams_subclusters(version: tuple[int, int, int]) -> bool:
    """Whether a QEMU may be asked for a ``block-stream`` into a qcow2 file with extended_l2."""
    return version >= _SUBCLUSTERS


_HEARS_WRITES = (10, 0)
"""The oldest version of which no move was seen to lose a write of an emulated guest, nor of 11.1. 7.2 loses some in one move
of ten, and what lies between was not to be had (findings/qemu-emulation-loses-writes.sh)."""


def loses_writes(version: tuple[int, int, int], accel: str) -> str:
    """Why a guest must stand still while its memory is sent, lest that lacks what it writes meanwhile; empty where not."""
    if accel != "tcg" or version >= _HEARS_WRITES:
        return ""
    return f"the emulation of QEMU {numbered(version)} loses writes of a guest that runs meanwhile, that of 10.0 none"


def numbered(version: Sequence[int], package: str = "") -> str:
    """A QEMU as people are told of it: ``7.2.22 (Debian 1:7.2+dfsg-7)``."""
    number = ".".join(map(str, version))
    return f"{number} ({package})" if package else number


@dataclass(frozen=True)
class MachineType:
    """One machine type: versioned name, alias (``q35``), and the most CPUs it takes."""

    name: str
    alias: str = ""
    max_cpus: int = 1
    default: bool = False


@dataclass(frozen=True)
class QemuFacts:
    """One binary, as it describes itself over QMP and in its help.

    ``types`` are the concrete QOM types; ``properties`` maps a device or object type to the names of its properties, for the
    types tinamou uses. ``options`` are command-line options without dash and, as ``machine.hpet``, their parameters that
    are not deprecated (those of ``machine`` are the union over all machine types). ``backends`` maps ``aio``, ``blockdev``,
    ``chardev``, ``display``, ``migration`` (its capabilities) and ``transport`` (what a state travels by; QEMU 7.2 does not
    say) to what is built in. ``loads`` are the files and folders beyond the system's own that it is loaded from, with its
    firmware and modules. ``notes`` say what could not be learned, and why. ``script`` says that the file is one, which
    becomes QEMU.
    """

    binary: str
    version: tuple[int, int, int]
    arch: str
    machines: tuple[MachineType, ...]
    cpu_models: frozenset[str]
    types: frozenset[str]
    commands: frozenset[str]
    accels: tuple[str, ...]
    options: frozenset[str]
    properties: Mapping[str, frozenset[str]] = field(default_factory=dict)
    netdevs: frozenset[str] = frozenset()
    data_dirs: tuple[str, ...] = ()
    backends: Mapping[str, frozenset[str]] = field(default_factory=dict)
    package: str = ""
    loads: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    script: bool = False

    def has(self, feature: str) -> bool:
        """Whether the binary offers a feature, written ``kind:name``.

        ``type:virtio-net-pci``, ``property:memory-backend-file.rom``, ``command:snapshot-save``, ``netdev:stream``,
        ``option:run-with``, ``option:machine.hpet``, ``machine:microvm``, ``accel:kvm``, ``cpu:max``,
        ``aio:io_uring``, ``blockdev:qcow2``, ``chardev:socket``, ``display:gtk``, ``migration:mapped-ram``,
        ``transport:file``.
        Raises ValueError for an unknown kind.
        """
        kind, _, name = feature.partition(":")
        if kind == "property":
            owner, _, prop = name.partition(".")
            return prop in self.properties.get(owner, frozenset())
        if kind in BACKEND_KINDS:
            return name in self.backends.get(kind, frozenset())
        if kind == "machine":
            return bool(name) and self.machine(name) is not None
        offered: Mapping[str, Collection[str]] = {
            "type": self.types,
            "command": self.commands,
            "netdev": self.netdevs,
            "option": self.options,
            "accel": self.accels,
            "cpu": self.cpu_models,
        }
        if kind not in offered:
            raise ValueError(f"unknown kind of feature: {feature!r}")
        return name in offered[kind]

    def same_board(self, machine_type: str, version: str) -> bool:
        """Whether that board is what it was in QEMU ``version`` (``7.2.22``): a versioned one is, or should be.

        Any board stays the same within a series (7.2), a versioned one (``pc-q35-7.2``) in all that have it (source:
        docs/devel/migration/compatibility.rst of QEMU). Whether the state of a machine loads is known when it was tried.
        """
        versioned = re.search(r"-\d+\.\d+$", machine_type) is not None
        return versioned or version.split(".")[:2] == [str(part) for part in self.version[:2]]

    def machine(self, name: str) -> MachineType | None:
        """The machine type of that name or alias."""
        return next((m for m in self.machines if name in (m.name, m.alias)), None)
