"""What all machines of this host hold together: CPUs, huge pages, kernel values, PCI devices; one file, gone after a reboot.

``tinamou.json`` in the host's folder of what a reboot removes (`tinamou.state.shared`) is read and replaced under a lock. A
machine is named by its directory, so that state directories beside each other share one host. The file does not exist while
nothing is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinamou.errors import TinamouError
from tinamou.late import asdict, dataclass, field
from tinamou.state import shared
from tinamou.system.paths import run_dir
from tinamou.units import CpuSet

__all__ = ["Claim", "Device", "Ledger", "Part", "Value", "VirtualFunctions", "edit", "fault", "look", "path", "save"]

_NAME = "tinamou.json"


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
    hand, the machine that has it (empty for none), and whether a user took it by hand, to be kept until given back;
    the number and size of a memory region that has another size meanwhile (``1 268435456``); the ways to reset it that it
    had before, where it has one alone meanwhile, and that one: ``flr bus, bus``."""

    driver: str
    owner: int = 0
    machine: str = ""
    by_hand: bool = False
    region: str = ""
    reset: str = ""


@dataclass
class VirtualFunctions:
    """How many virtual functions a card had before, and how many were switched on by hand until they are given back;
    whether drivers were offered them before (``sriov_drivers_autoprobe``; empty where the kernel cannot leave that out)."""

    before: int
    left: int
    offered: str = ""


@dataclass
class Part:
    """A device made of a part of a card (mdev): the card and the kind, empty where somebody else made it; who has it."""

    card: str = ""
    type: str = ""
    machine: str = ""


@dataclass
class Ledger:
    """``cpus``: machine → CPUs. ``pools`` and ``values``: file → `Value`. ``devices``: PCI address → `Device`.
    ``vfs``: a card's address → `VirtualFunctions`. ``usb``: a USB device's port → the machine's directory.
    ``parts``: UUID → `Part`. ``gpu_instances``: ``ADDRESS/NUMBER`` of a part of an NVIDIA card → its
    profile. ``reports``: what could not be given back."""

    cpus: dict[str, str] = field(default_factory=dict)
    pools: dict[str, Value] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    reports: list[str] = field(default_factory=list)
    devices: dict[str, Device] = field(default_factory=dict)
    vfs: dict[str, VirtualFunctions] = field(default_factory=dict)
    usb: dict[str, str] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    gpu_instances: dict[str, str] = field(default_factory=dict)

    def leased(self, exclude: str = "") -> dict[str, CpuSet]:
        """Machine directory → CPUs it holds, without the one at ``exclude``."""
        return {machine: CpuSet.parse(cpus) for machine, cpus in self.cpus.items() if machine != exclude}

    def holders(self) -> set[str]:
        """The directories of all machines that hold anything."""
        every = [*self.pools.values(), *self.values.values()]
        passed = {one.machine for one in self.devices.values()} | {one.machine for one in self.parts.values()}
        return {*self.cpus, *(passed - {""}), *self.usb.values(), *(machine for value in every for machine in value.claims)}

    @property
    def empty(self) -> bool:
        """Whether nobody holds anything and nothing is to be reported."""
        return not any(asdict(self).values())


def path() -> Path:
    """Where the ledger is."""
    return run_dir() / _NAME


def look() -> Ledger:
    """The ledger as it is now, to be read; empty where the one there is not believed (`fault`)."""
    return _ledger(_NAME)[0]


def fault() -> str:
    """Why the file there is not believed, in one sentence; empty where it is, or there is none."""
    return _ledger(_NAME)[1]


def _ledger(name: str) -> tuple[Ledger, str]:
    data = shared.read(name)
    if not data:
        return Ledger(), shared.fault(name)
    try:
        found = Ledger(
            cpus={str(machine): str(CpuSet.parse(cpus)) for machine, cpus in data["cpus"].items()},
            pools={name: _value(value) for name, value in data["pools"].items()},
            values={name: _value(value) for name, value in data["values"].items()},
            reports=[str(report) for report in data["reports"]],
            devices={address: Device(**device) for address, device in data["devices"].items()},
            vfs={address: VirtualFunctions(**one) for address, one in data.get("vfs", {}).items()},
            usb={str(port): str(machine) for port, machine in data.get("usb", {}).items()},
            parts={uuid: Part(**one) for uuid, one in data.get("parts", {}).items()},
            gpu_instances={str(name): str(profile) for name, profile in data.get("gpu_instances", {}).items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError, TinamouError) as error:
        return Ledger(), f"{path()} is damaged and not read: {error!r}"
    return found, ""


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
    with shared.held():
        ledger = look()
        try:
            yield ledger
        finally:
            save(ledger)


def save(ledger: Ledger) -> None:
    """Replaces the file as a whole, or removes it when nothing is held."""
    if not ledger.empty:
        shared.write(_NAME, asdict(ledger))
    elif path().is_file():
        path().unlink(missing_ok=True)
