"""What all machines of this host hold together: CPUs, huge pages, kernel values, PCI devices; one file, gone after a reboot.

``tinamou.json`` in the host's folder of what a reboot removes (`tinamou.system.paths`) is read and replaced under a lock. A
machine is named by its directory, so that state directories beside each other share one host. The file does not exist while
nothing is held.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tinamou.system.paths import run_dir
from tinamou.units import CpuSet

__all__ = ["Claim", "Device", "Ledger", "Value", "edit", "look", "path"]


@dataclass
class Claim:
    """One machine's pages of one pool: how many it was promised, and by how many the pool grew for it."""

    count: int
    grown: int = 0


@dataclass
class Value:
    """A kernel file machines have changed: its text before the first, the text tinamou left in it, and who wants it so.

    ``moving`` is set while a pool is resized: from how many pages to how many, and for which machine. Whoever finds it set
    met a crash, and finishes the move.
    """

    before: str
    left: str
    claims: dict[str, Claim] = field(default_factory=dict)
    moving: list[int] = field(default_factory=list)
    mover: str = ""


@dataclass
class Device:
    """A PCI function that is on vfio-pci: the driver it had before, who may open its group besides root before and by
    hand, the machine that has it (empty for none), and whether a user took it by hand, to be kept until given back."""

    driver: str
    owner: int = 0
    machine: str = ""
    by_hand: bool = False


@dataclass
class Ledger:
    """``cpus``: machine → CPUs. ``pools`` and ``values``: file → `Value`. ``devices``: PCI address → `Device`.
    ``reports``: what could not be given back."""

    cpus: dict[str, str] = field(default_factory=dict)
    pools: dict[str, Value] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    reports: list[str] = field(default_factory=list)
    devices: dict[str, Device] = field(default_factory=dict)

    def lent(self, besides: str = "") -> dict[str, CpuSet]:
        """Machine directory → CPUs it holds, without the one at ``besides``."""
        return {machine: CpuSet.parse(cpus) for machine, cpus in self.cpus.items() if machine != besides}

    def holders(self) -> set[str]:
        """The directories of all machines that hold anything."""
        every = [*self.pools.values(), *self.values.values()]
        passed = {device.machine for device in self.devices.values() if device.machine}
        return {*self.cpus, *passed, *(machine for value in every for machine in value.claims)}

    @property
    def empty(self) -> bool:
        """Whether nobody holds anything and nothing is to be reported."""
        return not (self.cpus or self.pools or self.values or self.devices or self.reports)


def path() -> Path:
    """Where the ledger is."""
    return run_dir() / "tinamou.json"


def look() -> Ledger:
    """The ledger as it is now, to be read."""
    try:
        data = json.loads(path().read_text())
    except (FileNotFoundError, ValueError):
        return Ledger()
    return Ledger(
        cpus=data["cpus"],
        pools={name: _value(value) for name, value in data["pools"].items()},
        values={name: _value(value) for name, value in data["values"].items()},
        reports=data["reports"],
        devices={address: Device(**device) for address, device in data.get("devices", {}).items()},
    )


def _value(data: dict[str, object]) -> Value:
    claims = data["claims"]
    assert isinstance(claims, dict)
    moving = data.get("moving", [])
    assert isinstance(moving, list)
    named = {machine: Claim(**claim) for machine, claim in claims.items()}
    return Value(str(data["before"]), str(data["left"]), named, moving, str(data.get("mover", "")))


@contextmanager
def edit() -> Iterator[Ledger]:
    """The ledger, nobody else's until the block ends; call `save` inside it before touching what was written down."""
    path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        ledger = look()
        try:
            yield ledger
        finally:
            save(ledger)
    finally:
        os.close(folder)


def save(ledger: Ledger) -> None:
    """Replaces the file as a whole, or removes it when nothing is held."""
    target = path()
    if ledger.empty:
        target.unlink(missing_ok=True)
        return
    part = target.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(ledger), file)
        file.flush()
        os.fdatasync(file.fileno())
    part.replace(target)
