"""Part pci: devices of the host that the guest has for itself, through VFIO: which, with which others, behind which port.

Source: Linux Documentation/driver-api/vfio.rst, QEMU docs/pcie.txt, ``qemu-system-x86_64 -device vfio-pci,help``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from tinamou.blueprint import Contribution, Element, Flag, Note, SetVirtualFunction, Step, TakePciGroup, Value, Why
from tinamou.errors import Problem
from tinamou.facts import Facts
from tinamou.facts.pci import VFIO, PciDevice, PciFacts
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved
from tinamou.units import PciAddress, Size

__all__ = ["HOW_TO_LOCK", "LOCAL", "PART", "AssignedDevice", "PassthroughSpec", "choose", "locked", "node"]

_IDS = r"[0-9a-f]{4}:[0-9a-f]{4}"
_ADDRESS = r"(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
_VIRTUAL = "vf of "

_FIRST_CHASSIS = 128
"""Beyond those of the hot-plug slots: a guest tells ports apart by it."""

_EXPANDER, _FIRST_BUS = "pxb-pcie", 0x40
"""A root complex of its own, and the number of the first one's bus: those before are for ports of the board's."""

_MAPPED = Size(1 << 30)
"""What the kernel may count beside guest memory: the devices' own regions that QEMU maps (as libvirt allows for)."""

HOW_TO_LOCK = "set memlock in /etc/security/limits.d and log in again; for a container: --ulimit memlock=-1"
"""What to do where QEMU may lock less memory than it must."""

_ROOMY = Size(16 << 30)
"""Firmware older than 2022 makes 32 GiB of room for large regions; half of it is safe with any alignment."""


@dataclass(frozen=True)
class PassthroughSpec:
    """One device of the host."""

    shorthand: ClassVar[str] = "device"

    device: str = option(
        "",
        "its address as lspci shows it (65:00.0), VENDOR:DEVICE for the first free card of that kind (10de:1db4), or "
        "'vf of eth2' for the first free virtual function of a card, named by its interface or address",
        pattern=rf"(?i:{_ADDRESS}|{_IDS}|{_VIRTUAL}\S{{1,32}})",
        hint="tinamou pci ls lists the devices of this host",
    )
    alone: bool = option(False, "this function only, without the others of its card (a graphics card's sound, for example)")
    rom: bool = option(True, "the guest's firmware may run the card's own boot code")
    mac: str = option("", "a virtual function's address, set by its card", pattern=r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")
    vlan: int = option(0, "the VLAN its card puts a virtual function in; 0: none", minimum=0, maximum=4094)
    trust: bool = option(False, "a virtual function may change its address and hear everything")
    spoof_check: bool = option(True, "the card drops what a virtual function sends from another address")

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """What its card is to set for a virtual function, in the words of ip(8); none where nothing is asked for."""
        asked = {"mac": self.mac.lower(), "vlan": str(self.vlan or "")}
        asked |= {"trust": "on" * self.trust, "spoofchk": "" if self.spoof_check else "off"}
        return tuple((key, value) for key, value in asked.items() if value)

    def problems(self) -> list[Problem]:
        """A device that is not named."""
        if self.device:
            return []
        return [Problem("device", None, "no device is named", "write for example pci = ['65:00.0']; see: tinamou pci ls")]


@dataclass(frozen=True)
class AssignedDevice:
    """The request of that number and the functions that meet it, in the order of their addresses."""

    number: int
    spec: PassthroughSpec
    functions: tuple[PciDevice, ...]


def choose(specs: tuple[PassthroughSpec, ...], facts: Facts) -> tuple[tuple[AssignedDevice, ...], list[Problem]]:
    """The devices each request stands for, and everything that keeps them from being assigned."""
    pci = facts.pci
    found: list[AssignedDevice] = []
    problems: list[Problem] = []
    if specs and pci.missing:
        return (), [Problem("pci", [one.device for one in specs], pci.missing, "see: tinamou pci ls")]
    for number, spec in enumerate(specs):
        beside = [function for assigned in found for function in assigned.functions]
        alike = sum(one.device.lower() == spec.device.lower() for one in specs[number:])
        device = _named(spec, pci, beside, alike)
        if isinstance(device, str):
            fix = "tinamou pci ls lists the devices of this host"
            problems.append(Problem(f"pci[{number}]", spec.device, device, fix))
        else:
            found.append(AssignedDevice(number, spec, (device,) if spec.alone else pci.card_of(device)))
    every = [function.address for assigned in found for function in assigned.functions]
    for assigned in found:
        problems += [*_obstacles(assigned, pci, every), *_settings(assigned, pci)]
        if not facts.host.is_root:
            problems += _needs_root(assigned, pci)
    return tuple(found), problems


def _named(spec: PassthroughSpec, pci: PciFacts, beside: list[PciDevice], alike: int) -> PciDevice | str:
    """The device of that address, or one of that kind that nobody has; else why there is none.

    It is as near to those the machine has (``beside``) as can be, where so many of its kind (``alike``) can be near it.
    """
    taken = {one.address for one in beside}
    if spec.device.lower().startswith(_VIRTUAL):
        kind = _virtual(spec.device[len(_VIRTUAL) :], pci)
        if isinstance(kind, str):
            return kind
    elif "." in spec.device:
        return pci.at(PciAddress.parse(spec.device)) or "this host has no such device"
    else:
        kind = [one for one in pci.devices if one.ids == spec.device.lower()]
    if not kind:
        return "this host has no device of this kind"
    free = [one for one in kind if one.address not in taken and not pci.holder(one) and not one.uses]
    if free:
        return min(free, key=lambda one: _distance(one, beside, free, alike))
    return "none is free: " + "; ".join(f"{one.address} {_why_not_free(one, pci, taken)}" for one in kind)


def _distance(one: PciDevice, beside: list[PciDevice], free: list[PciDevice], alike: int) -> tuple[bool, ...]:
    """For choosing the least: cards behind one switch reach each other without the processor."""

    def switch(card: PciDevice) -> tuple[str, ...]:
        return (card.root, *card.bridges[:-1])

    near = (
        any(switch(one) == switch(other) for other in beside),
        any(one.node == other.node for other in beside),
        sum(switch(one) == switch(other) for other in free) >= alike,
        sum(one.node == other.node for other in free) >= alike,
    )
    return tuple(not each for each in near)


def _virtual(name: str, pci: PciFacts) -> list[PciDevice] | str:
    """The virtual functions of a card, by number; why there are none else."""
    card = pci.called(name)
    if card is None:
        return f"this host has no device and no interface {name}"
    if not card.vfs[1]:
        return f"{card} has no virtual functions (sysfs: sriov_totalvfs)"
    if found := pci.virtual_of(card):
        return sorted(found, key=lambda one: one.index)
    return f"none is switched on, {card.vfs[1]} can be: tinamou pci create-vfs {card.address} {card.vfs[1]}"


def _why_not_free(device: PciDevice, pci: PciFacts, taken: set[PciAddress]) -> str:
    if device.address in taken:
        return "is given to this machine already"
    holder = pci.holder(device)
    return f"is leased to {holder}" if holder else f"is in use ({', '.join(device.uses)})"


def _obstacles(assigned: AssignedDevice, pci: PciFacts, every: list[PciAddress]) -> list[Problem]:
    path, problems = f"pci[{assigned.number}]", []
    for one in assigned.functions:
        problems += _own_obstacles(path, one, pci)
        if every.count(one.address) > 1:
            problems.append(Problem(path, str(one.address), "it is named twice", "name each card once"))
    neighbours = {neighbour.address: neighbour for function in assigned.functions for neighbour in pci.group_of(function)}
    for address, one in neighbours.items():
        if address not in every and not one.at_rest:
            reason = f"{one}, which {one.driver} has, is in the same IOMMU group ({one.group}): they can only go together"
            fix = f"name it as well, or free it: tinamou pci take {address}"
            problems.append(Problem(path, str(assigned.functions[0].address), reason, fix))
    return problems


def _settings(assigned: AssignedDevice, pci: PciFacts) -> list[Problem]:
    """What is asked of a card for its virtual function, where there is no such card, or no interface to ask it by."""
    path, device = f"pci[{assigned.number}]", assigned.functions[0]
    asked = [{"spoofchk": "spoof_check"}.get(key, key) for key, _ in assigned.spec.settings]
    if not asked or (device.parent and _interface(device, pci)):
        return []
    reason = f"the interface of its card {device.parent} is not there" if device.parent else "it is no virtual function"
    return [Problem(f"{path}.{key}", str(device.address), reason, "leave it out, or set it in the guest") for key in asked]


def _interface(device: PciDevice, pci: PciFacts) -> str:
    """The interface of the card a virtual function is of."""
    card = pci.at(device.parent) if device.parent else None
    return card.nets[0] if card and card.nets else ""


def _own_obstacles(path: str, one: PciDevice, pci: PciFacts) -> list[Problem]:
    value = str(one.address)
    if one.is_bridge:
        return [Problem(path, value, "it is a bridge", "name a device behind it")]
    if one.group is None:
        return [Problem(path, value, "no IOMMU keeps it to the memory of its guest", "choose another")]
    problems = []
    if holder := pci.holder(one):
        problems.append(Problem(path, value, f"{holder} has it, or one of its IOMMU group", "stop that machine first"))
    if one.uses:
        fix = "end that use first: set the interface down, unmount the disk, stop the programs"
        problems.append(Problem(path, value, f"this host uses it: {', '.join(one.uses)}", fix))
    return problems


def _needs_root(assigned: AssignedDevice, pci: PciFacts) -> list[Problem]:
    """Only root can take a device from its driver; from then on any user may be let to it."""
    needed = [str(one.address) for one in assigned.functions if one.driver != VFIO or one.group not in pci.open_groups]
    if not needed:
        return []
    fix = f"once, as root: tinamou pci take --user $USER {' '.join(needed)}"
    return [Problem(f"pci[{assigned.number}]", needed[0], "only root can take it from its driver and open its group", fix)]


def needs(resolved: Resolved) -> tuple[Need, ...]:
    """A root port for each card, behind which a guest's driver finds a PCI Express card as in a real machine."""
    return tuple(PciSlot(_port(number)) for number in range(len(resolved.spec.pci)))


def _port(number: int) -> str:
    return f"pci{number}-port"


def node(assigned: tuple[AssignedDevice, ...]) -> int | None:
    """The memory node of the first device, beside which the machine is placed; None where that is not known."""
    return next((one.functions[0].node for one in assigned if one.functions[0].node >= 0), None)


def locked(assigned: tuple[AssignedDevice, ...], memory: Size) -> int | None:
    """How many bytes QEMU must be able to lock in memory; None where nothing is given away."""
    return memory + _MAPPED if assigned else None


def check(resolved: Resolved) -> list[Problem]:
    """What keeps the devices from the machine, and what of it, its QEMU or its user does not go with devices of the host."""
    memory, facts = resolved.spec.memory, resolved.facts
    assigned, problems = choose(resolved.spec.pci, facts)
    if not assigned:
        return problems
    if memory.forkable:
        reason = "a fork would need a card of its own, and QEMU cannot save what is in a real one"
        problems.append(Problem("memory.forkable", True, reason, "leave pci or forkable out"))
    if not facts.qemu.has(f"type:{VFIO}"):
        problems.append(Problem("pci", None, f"{facts.qemu.binary} has no {VFIO}", "use a QEMU that has it"))
    needed, limit = locked(assigned, memory.size) or 0, facts.pci.locked
    if limit is not None and limit < needed:
        added = f"{memory.size.mib} MiB of guest memory + {_MAPPED.mib} MiB of the devices' own"
        reason = f"{added} must be locked, as devices write there at any time, and QEMU may lock {limit >> 20} MiB here"
        problems.append(Problem("memory.size", str(memory.size), reason, HOW_TO_LOCK))
    return problems


def contribute(resolved: Resolved) -> Contribution:
    """The groups that are taken from the host, and each card behind its port, its functions in one slot."""
    elements = tuple(e for one in resolved.assigned if _beside(one, resolved) is None for e in _card(one, resolved))
    every = [function for one in resolved.assigned for function in one.functions]
    steps: tuple[Step, ...] = (*_virtual_steps(resolved), *_groups(every, resolved))
    return Contribution(elements, _window(every, resolved), steps, _notes(every))


def _virtual_steps(resolved: Resolved) -> Iterator[SetVirtualFunction]:
    for one in resolved.assigned:
        device = one.functions[0]
        if one.spec.settings:
            why = Why("spec pci", f"{device} is given to the guest like this by its card: it cannot change that itself")
            yield SetVirtualFunction(_interface(device, resolved.facts.pci), device.index, one.spec.settings, why)


def _beside(assigned: AssignedDevice, resolved: Resolved) -> int | None:
    """The guest's memory node that lies where the device does; None where the guest is shown one alone, or not that one."""
    nodes = resolved.resources.numa.nodes
    if len(nodes) < 2 or not resolved.arch.expanders or not resolved.facts.qemu.has(f"type:{_EXPANDER}"):
        return None
    here = assigned.functions[0].node
    return next((number for number, one in enumerate(nodes) if one.host_node == here), None)


def _local(resolved: Resolved) -> Contribution:
    """Cards whose memory node the guest has too: each such node gets a root complex, which tells the guest where they are.

    They come last on the command line: QEMU puts a device that names no bus behind the newest root complex.
    """
    elements: list[Element] = []
    seats: dict[int, int] = {}
    for one in resolved.assigned:
        if (node := _beside(one, resolved)) is None:
            continue
        if node not in seats:
            why = Why("part pci", f"the guest's drivers see that {one.functions[0]} is beside its memory node {node}")
            bus = _FIRST_BUS + node * ((256 - _FIRST_BUS) // len(resolved.resources.numa.nodes))
            props: dict[str, Value] = {"driver": _EXPANDER, "id": f"pxb{node}", "bus": "pcie.0", "numa_node": node}
            elements.append(Element("device", {**props, "bus_nr": bus, "addr": resolved.pci[_port(one.number)]}, why))
        seats[node] = seats.get(node, -1) + 1
        elements += _card(one, resolved, {"bus": f"pxb{node}", "addr": f"{seats[node]:#x}"})
    return Contribution(tuple(elements))


def _card(assigned: AssignedDevice, resolved: Resolved, place: dict[str, Value] | None = None) -> list[Element]:
    why = Why("spec pci", f"{assigned.functions[0]} is the guest's alone")
    behind = Why("part pci", "a card behind a root port of its own, as drivers expect a PCI Express card to be")
    port, number = _port(assigned.number), _FIRST_CHASSIS + assigned.number
    seat: dict[str, Value] = {"driver": "pcie-root-port", "id": port, "chassis": number, "slot": number}
    elements = [Element("device", {**seat, **(place or {"addr": resolved.pci[port]})}, behind)]
    for function, one in enumerate(assigned.functions):
        props: dict[str, Value] = {"driver": VFIO, "id": f"pci{assigned.number}" + (f".{function}" if function else "")}
        props |= {"host": str(one.address), "bus": port, "addr": f"0x0.{function:#x}"}
        if len(assigned.functions) > 1 and not function:
            props["multifunction"] = True
        if not assigned.spec.rom:
            props["rombar"] = 0
        elements.append(Element("device", props, why))
    return elements


def _groups(every: list[PciDevice], resolved: Resolved) -> tuple[TakePciGroup, ...]:
    groups: dict[int, list[PciDevice]] = {}
    for one in every:
        if one.group is not None:
            groups.setdefault(one.group, []).append(one)
    return tuple(
        TakePciGroup(group, tuple(str(one.address) for one in members), _why(members), resolved.owner)
        for group, members in groups.items()
    )


def _why(members: list[PciDevice]) -> Why:
    shown = ", ".join(f"{one} from {one.driver or 'no driver'}" for one in members)
    return Why("spec pci", f"{shown}: to {VFIO} while this machine runs, and back to what it had")


def _window(every: list[PciDevice], resolved: Resolved) -> tuple[Flag, ...]:
    """Room for large memory regions, which UEFI firmware must be told of; SeaBIOS and Linux make it themselves.

    Source: edk2 OvmfPkg/Library/PlatformInitLib/MemDetect.c.
    """
    wanted, file = Size(sum(one.window for one in every)), resolved.arch.window_file
    if resolved.boot != "uefi" or not file or wanted <= _ROOMY:
        return ()
    room = Size(1 << (2 * wanted - 1).bit_length())
    reason = f"the devices' large memory regions take {wanted}: the firmware makes room for {room} above 4 GiB"
    return (Flag("fw_cfg", Why("part pci", reason), options={"name": file, "string": str(room.mib)}),)


def _notes(every: list[PciDevice]) -> tuple[Note, ...]:
    """What of a card the user may want to do something about: how it is reset, and regions it could have larger."""
    found = []
    if stubborn := ", ".join(str(one.address) for one in every if not one.resets):
        text = f"{stubborn} cannot be reset alone: after a crash the card may need a restart of the host"
        found.append(Note("warning", text, Why("host", "the kernel knows no way to reset it (sysfs: reset_method)")))
    if shared := ", ".join(str(one.address) for one in every if one.reset_methods[:1] == ("bus",)):
        text = f"{shared} is reset by its bus alone: with everything behind the same port"
        found.append(Note("note", text, Why("host", "its first reset_method in sysfs is bus: no reset of one function")))
    for one in every:
        for number, sizes in one.sizes.items():
            if (now := one.bars.get(number, Size(0))) < max(sizes):
                text = f"region {number} of {one.address} has {now} and can have {max(sizes)}"
                how = f"before the machine starts, with no driver on it: sysfs, resource{number}_resize"
                found.append(Note("note", text, Why("host", how)))
    return tuple(found)


PART = Part(contribute, needs, check)
LOCAL = Part(_local)
