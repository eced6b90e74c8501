"""What devices of the host become: each card behind a port of its own, beside its memory node, opened for the machine alone.

Source: Linux Documentation/driver-api/vfio.rst, QEMU docs/pcie.txt, ``qemu-system-x86_64 -device vfio-pci,help``.
"""

from __future__ import annotations

from collections.abc import Iterator

from tinamou.blueprint import Contribution, Element, HandOver, SetVirtualFunction, Step, TakePart, TakePciGroup, Value, Why
from tinamou.errors import Problem
from tinamou.facts.pci import IOMMU, NVIDIA, VFIO, MediatedDevice, PciDevice
from tinamou.parts.passthrough.choice import choose, interface
from tinamou.parts.passthrough.room import notes, regions, room_problems, window
from tinamou.parts.passthrough.spec import AssignedDevice
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved
from tinamou.units import Size

__all__ = ["HOW_TO_LOCK", "LOCAL", "PART", "locked", "node"]

_IOMMUFD = "iommu0"
"""The object of QEMU's that keeps each device to the guest's memory, where the kernel hands out devices one by one."""

_OPREGION, _CLIQUE = "x-igd-opregion", "x-nv-gpudirect-clique"

_FIRST_CHASSIS = 128
"""Beyond those of the hot-plug slots: a guest tells ports apart by it."""

_EXPANDER, _FIRST_BUS = "pxb-pcie", 0x40
"""A root complex of its own, and the number of the first one's bus: those before are for ports of the board's."""

_MAPPED = Size(1 << 30)
"""What the kernel may count beside guest memory: the devices' own regions that QEMU maps (as libvirt allows for)."""

HOW_TO_LOCK = "set memlock in /etc/security/limits.d and log in again; for a container: --ulimit memlock=-1"
"""What to do where QEMU may lock less memory than it must."""


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
    if resolved.spec.devices.iommufd == "on" and (reason := _not_one_by_one(resolved)):
        problems.append(Problem("devices.iommufd", "on", reason, "leave it at auto"))
    if not assigned:
        return problems
    problems += room_problems(resolved)
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
    every = [function for one in resolved.assigned if not one.part for function in one.functions]
    taken: tuple[Step, ...] = (*_virtual_steps(resolved), *_groups(every, resolved), *_parts(resolved))
    opened = [*(one.opened for one in every), *(one.part.opened for one in resolved.assigned if one.part)]
    steps = (*taken, *_handed(opened, resolved), *_roms(resolved))
    return Contribution((*_iommufd(resolved), *elements), window(resolved), steps, notes(resolved))


def _parts(resolved: Resolved) -> Iterator[TakePart]:
    owner = None if _one_by_one(resolved) else resolved.owner
    for one in resolved.assigned:
        if one.part and one.part.group is not None:
            why = Why("spec pci", f"a part of {one.functions[0]}, {one.part.type}, while this machine runs")
            yield TakePart(one.part.uuid, one.part.group, why, owner)


def _roms(resolved: Resolved) -> tuple[HandOver, ...]:
    why = Why("confinement", "QEMU is handed the open file with the card's boot code")
    return tuple(HandOver(one.spec.rom_file, "read", why) for one in resolved.assigned if one.spec.rom_file)


def _one_by_one(resolved: Resolved) -> bool:
    """Whether QEMU is handed each device and the IOMMU, open, in place of a group that it opens by itself."""
    return bool(resolved.assigned) and resolved.spec.devices.iommufd != "off" and not _not_one_by_one(resolved)


def _not_one_by_one(resolved: Resolved) -> str:
    """Why the devices cannot be handed over open; empty where they can."""
    facts = resolved.facts
    if not resolved.spec.pci:
        return "the machine has no device of the host"
    if not facts.pci.one_by_one:
        return "this kernel hands out groups alone (built without IOMMUFD or VFIO_DEVICE_CDEV)"
    if not facts.qemu.has(f"property:{VFIO}.iommufd"):
        return f"{facts.qemu.binary} knows groups alone (iommufd came with QEMU 9.0)"
    return "" if facts.host.is_root else "only root may open a device by itself"


def _iommufd(resolved: Resolved) -> tuple[Element, ...]:
    if not _one_by_one(resolved):
        return ()
    why = Why("part pci", "QEMU is handed the IOMMU and each device open: it opens nothing in /dev/vfio (IOMMUFD)")
    return (Element("object", {"qom-type": "iommufd", "id": _IOMMUFD, "fd": IOMMU}, why),)


def _handed(opened: list[str], resolved: Resolved) -> tuple[HandOver, ...]:
    if not _one_by_one(resolved):
        return ()
    why = Why("confinement", "QEMU is handed the open device, and has no right to open one")
    return (HandOver(IOMMU, "write", why), *(HandOver(one, "device", why) for one in opened))


def _virtual_steps(resolved: Resolved) -> Iterator[SetVirtualFunction]:
    for one in resolved.assigned:
        device = one.functions[0]
        if one.spec.settings:
            why = Why("spec pci", f"{device} is given to the guest like this by its card: it cannot change that itself")
            yield SetVirtualFunction(interface(device, resolved.facts.pci), device.index, one.spec.settings, why)


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
    if assigned.part:
        return [*elements, _part(assigned, assigned.part, port, resolved)]
    for function, one in enumerate(assigned.functions):
        props: dict[str, Value] = {"driver": VFIO, "id": f"pci{assigned.number}" + (f".{function}" if function else "")}
        props |= {"host": str(one.address), "bus": port, "addr": f"0x0.{function:#x}"}
        if len(assigned.functions) > 1 and not function:
            props["multifunction"] = True
        if _one_by_one(resolved):
            props |= {"iommufd": _IOMMUFD, "fd": one.opened}
        props |= _boot_code(assigned, function) | _of_its_maker(one, assigned, resolved)
        elements.append(Element("device", props, why))
    return elements


def _part(assigned: AssignedDevice, part: MediatedDevice, port: str, resolved: Resolved) -> Element:
    props: dict[str, Value] = {
        "driver": VFIO,
        "id": f"pci{assigned.number}",
        "sysfsdev": part.place,
        "bus": port,
        "addr": "0x0",
    }
    if _one_by_one(resolved):
        props |= {"iommufd": _IOMMUFD, "fd": part.opened}
    if not assigned.spec.rom:
        props["rombar"] = 0
    return Element("device", props, Why("spec pci", f"a part of {assigned.functions[0]} ({part.type}) is the guest's alone"))


def _boot_code(assigned: AssignedDevice, function: int) -> dict[str, Value]:
    """None, or that of a file for the first function, which is the one that has some."""
    if not assigned.spec.rom:
        return {"rombar": 0}
    return {"romfile": assigned.spec.rom_file} if assigned.spec.rom_file and not function else {}


def _of_its_maker(one: PciDevice, assigned: AssignedDevice, resolved: Resolved) -> dict[str, Value]:
    """What drivers of one maker look for: Intel's of a processor's own graphics its tables (OpRegion), NVIDIA's which cards
    reach each other (GPUDirect; source: QEMU hw/vfio/pci-quirks.c)."""
    if one.is_igd and resolved.facts.qemu.has(f"property:{VFIO}.{_OPREGION}"):
        return {_OPREGION: True}
    if assigned.spec.together and one.vendor == NVIDIA and one.kind == "graphics":
        return {_CLIQUE: 0} if resolved.facts.qemu.has(f"property:{VFIO}.{_CLIQUE}") else {}
    return {}


def _groups(every: list[PciDevice], resolved: Resolved) -> tuple[TakePciGroup, ...]:
    groups: dict[int, list[PciDevice]] = {}
    for one in every:
        if one.group is not None:
            groups.setdefault(one.group, []).append(one)
    owner, sizes = None if _one_by_one(resolved) else resolved.owner, regions(resolved.assigned)
    ways = {str(each.address): one.chosen_reset(each) for one in resolved.assigned for each in one.functions}
    return tuple(
        TakePciGroup(
            group,
            tuple(str(one.address) for one in members),
            _why(members),
            owner,
            tuple(sizes[one.address] for one in members if one.address in sizes),
            tuple((str(one.address), ways[str(one.address)]) for one in members if ways.get(str(one.address))),
        )
        for group, members in groups.items()
    )


def _why(members: list[PciDevice]) -> Why:
    shown = ", ".join(f"{one} from {one.driver or 'no driver'}" for one in members)
    return Why("spec pci", f"{shown}: to {VFIO} while this machine runs, and back to what it had")


PART = Part(contribute, needs, check)
LOCAL = Part(_local)
