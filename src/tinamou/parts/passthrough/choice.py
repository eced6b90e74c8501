"""Which devices of the host a request stands for, and everything that keeps them from a guest."""

from __future__ import annotations

from collections.abc import Collection

from tinamou.errors import Problem
from tinamou.facts import Facts
from tinamou.facts.pci import VFIO, MediatedDevice, PciDevice, PciFacts
from tinamou.parts.passthrough.spec import MEDIATED, VIRTUAL, AssignedDevice, PassthroughSpec
from tinamou.units import PciAddress

__all__ = ["choose", "interface"]


def choose(specs: tuple[PassthroughSpec, ...], facts: Facts) -> tuple[tuple[AssignedDevice, ...], list[Problem]]:
    """The devices each request stands for, and everything that keeps them from being assigned."""
    pci = facts.pci
    found: list[AssignedDevice] = []
    problems: list[Problem] = []
    if specs and pci.missing:
        return (), [Problem("pci", [one.device for one in specs], pci.missing, "see: tinamou pci ls")]
    for number, spec in enumerate(specs):
        beside = [function for assigned in found if not assigned.part for function in assigned.functions]
        alike = sum(one.device.lower() == spec.device.lower() for one in specs[number:])
        device = _named(spec, pci, beside, alike, [assigned.part for assigned in found if assigned.part])
        if isinstance(device, str):
            fix = "tinamou pci ls lists the devices of this host"
            problems.append(Problem(f"pci[{number}]", spec.device, device, fix))
        elif isinstance(device, MediatedDevice):
            found.append(_part(number, spec, device, pci))
        else:
            found.append(AssignedDevice(number, spec, (device,) if spec.alone else pci.card_of(device)))
    every = [function.address for assigned in found for function in assigned.functions if not assigned.part]
    for assigned in found:
        if assigned.part:
            problems += [*_settings(assigned, pci), *_of_parts(assigned, facts)]
            continue
        problems += [*_obstacles(assigned, pci, every), *_settings(assigned, pci), *_region(assigned), *_reset(assigned)]
        if not facts.host.is_root:
            problems += _needs_root(assigned, pci)
    return tuple(found), [*problems, *_apart(found)]


def _apart(found: list[AssignedDevice]) -> list[Problem]:
    """Those that were to be behind one switch, and are not behind that of the first."""
    peers = [one for one in found if one.spec.together]
    apart = [one for one in peers if one.functions[0].behind != peers[0].functions[0].behind]
    reason = "{} is behind another switch than {}: they would reach each other through the processor"
    fix = "tinamou pci ls --tree shows which are behind one; leave together out"
    return [
        Problem(f"pci[{one.number}].together", True, reason.format(one.functions[0], peers[0].functions[0].address), fix)
        for one in apart
    ]


def _region(assigned: AssignedDevice) -> list[Problem]:
    """A size that its region cannot be given."""
    wanted, path = assigned.spec.region, f"pci[{assigned.number}].region"
    if not wanted:
        return []
    if (found := assigned.resized) is None:
        reason = "it has no region of another size, or the kernel does not resize it (sysfs: resource0_resize)"
        return [Problem(path, str(wanted), reason, "leave it out")]
    device, region = found
    if wanted in device.sizes[region]:
        return []
    offered = ", ".join(map(str, device.sizes[region]))
    return [Problem(path, str(wanted), f"region {region} of {device.address} can have {offered}", "choose one of these")]


def _reset(assigned: AssignedDevice) -> list[Problem]:
    """A way to be reset that none of its functions has."""
    wanted, path = assigned.spec.reset, f"pci[{assigned.number}].reset"
    if not wanted or any(wanted in one.reset_methods for one in assigned.functions):
        return []
    offered = "; ".join(f"{one.address} {', '.join(one.reset_methods) or 'none'}" for one in assigned.functions)
    return [Problem(path, wanted, f"the kernel has other ways (sysfs: reset_method): {offered}", "choose one of these")]


def _named(
    spec: PassthroughSpec, pci: PciFacts, beside: list[PciDevice], alike: int, parts: Collection[MediatedDevice]
) -> PciDevice | MediatedDevice | str:
    """The device of that address, or one of that kind that nobody has; else why there is none.

    It is as near to those the machine has (``beside``) as can be, where so many of its kind (``alike``) can be near it.
    """
    taken = {one.address for one in beside}
    if spec.device.lower().startswith(MEDIATED):
        return _mediated(spec.device[len(MEDIATED) :], pci, parts)
    if spec.device.lower().startswith(VIRTUAL):
        kind = _virtual(spec.device[len(VIRTUAL) :], pci)
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

    near = (
        any(one.behind == other.behind for other in beside),
        any(one.node == other.node for other in beside),
        sum(one.behind == other.behind for other in free) >= alike,
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


def _mediated(name: str, pci: PciFacts, given: Collection[MediatedDevice]) -> MediatedDevice | str:
    """The first of the parts of a card that nobody has; why there is none else."""
    card = pci.called(name)
    if card is None:
        return f"this host has no device and no interface {name}"
    if not (made := pci.parts_of(card)):
        if not card.mediated:
            return f"the driver of {card} makes no devices of parts of it (sysfs: mdev_supported_types)"
        kinds = ", ".join(f"{one.type} ({one.name}, {one.free} more)" for one in card.mediated)
        return f"none is made, there can be {kinds}: tinamou pci create-mdev {card.address} {card.mediated[0].type}"
    free = [one for one in made if one not in given and one.uuid not in pci.leased]
    if free:
        return free[0]
    said = (f"{one.uuid} is leased to {pci.leased.get(one.uuid, 'this machine already')}" for one in made)
    return f"none is free: {'; '.join(said)}"


def _part(number: int, spec: PassthroughSpec, part: MediatedDevice, pci: PciFacts) -> AssignedDevice:
    card = pci.at(part.card)
    return AssignedDevice(number, spec, (card,) if card else (), part)


def _of_parts(assigned: AssignedDevice, facts: Facts) -> list[Problem]:
    """What of a whole card does not go with a part of one, and who may have it."""
    spec, path = assigned.spec, f"pci[{assigned.number}]"
    asked = {
        "alone": spec.alone,
        "region": spec.region,
        "reset": spec.reset,
        "together": spec.together,
        "rom_file": spec.rom_file,
    }
    found = [
        Problem(f"{path}.{name}", str(value), "it is a part of a card, not a card", "leave it out")
        for name, value in asked.items()
        if value
    ]
    if assigned.part and assigned.part.group is None:
        found.append(Problem(path, spec.device, "no IOMMU group is shown for it", "see the kernel's log"))
    if not facts.host.is_root and assigned.part and assigned.part.group not in facts.pci.open_groups:
        found.append(Problem(path, spec.device, "only root can open its group", "run tinamou as root"))
    return found


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
    asked = [{"spoofchk": "spoof_check", "max_tx_rate": "rate"}.get(key, key) for key, _ in assigned.spec.settings]
    if not asked or (device.parent and not assigned.part and interface(device, pci)):
        return []
    reason = f"the interface of its card {device.parent} is not there" if device.parent else "it is no virtual function"
    return [Problem(f"{path}.{key}", str(device.address), reason, "leave it out, or set it in the guest") for key in asked]


def interface(device: PciDevice, pci: PciFacts) -> str:
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
