"""On which host a machine belongs: a pure function of what it needs and what each host has left, with a why for each host.

What must hold: memory, huge pages and CPUs are there, devices by kind, and the rules ``spread``, ``together`` and ``near``.
Of the hosts where it does, the one is taken that leaves the least behind which nothing else could use (`cost`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tinamou.arch import ARCHES
from tinamou.late import dataclass, field, replace
from tinamou.spec import MachineSpec
from tinamou.tuning.admission import MemoryBill
from tinamou.units import Size

__all__ = ["Fit", "Need", "Node", "Room", "Verdict", "best", "cost", "fit", "need_of", "take", "verdicts"]

_GROUP = 5
"""For so many like itself the first machine of a group that is to be together looks for room."""


@dataclass(frozen=True)
class Need:
    """What a machine takes of a host. Memory in bytes, its own and QEMU's; what lies on huge pages is counted in pages.

    ``page`` is the size of those, 0 for none; ``devices`` is kind (VENDOR:DEVICE) → how many it takes.
    """

    name: str
    cpus: int
    memory: int
    page: int = 0
    pages: int = 0
    devices: Mapping[str, int] = field(default_factory=dict)
    near: str = ""
    spread: str = ""
    together: str = ""
    arch: str = ""


@dataclass(frozen=True)
class Node:
    """What is left of one memory node: CPUs, bytes, huge pages by size, devices by kind; ``beside`` are the kinds it has."""

    number: int
    cpus: float
    memory: int
    pages: Mapping[int, int] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)
    beside: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Room:
    """What is left of one host, and the groups that its machines belong to (once for each machine).

    ``cpus`` and ``memory`` are what the whole host has left, which may be less than its nodes have; ``all_cpus`` and
    ``all_memory`` what it has when it is empty.
    """

    name: str
    arch: str
    cpus: float
    memory: int
    all_cpus: float
    all_memory: int
    nodes: tuple[Node, ...]
    spread: tuple[str, ...] = ()
    together: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fit:
    """It has room on a host, on these memory nodes: one where that can be. ``emulated``: its guest has another processor."""

    nodes: tuple[int, ...]
    emulated: bool = False


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one host: ``why`` it is not taken, or how it would be; ``cost`` is lower for the better."""

    host: str
    fit: Fit | None
    cost: tuple[float, ...]
    why: str


def need_of(spec: MachineSpec) -> Need:
    """What a described machine needs. Devices that are named by their address are no kind: such a machine has its host."""
    size, cpus = int(spec.memory.size), spec.cpu.count
    page = 0 if spec.memory.hugepages in ("off", "auto") else int(Size.parse(spec.memory.hugepages))
    pages = -(-size // page) if page else 0
    kinds: dict[str, int] = {}
    for one in spec.pci:
        kinds[one.device.lower()] = kinds.get(one.device.lower(), 0) + 1
    own = int(MemoryBill.qemu_overhead(cpus)) + (0 if page else size)
    rules = spec.placement
    return Need(spec.name, cpus, own, page, pages, kinds, rules.near.lower(), rules.spread, rules.together, spec.arch)


def fit(need: Need, room: Room, homes: frozenset[str] = frozenset()) -> Fit | str:
    """Where it has room on this host, or why it has none; ``homes`` are the hosts that have its group ``together``."""
    if not need.arch and room.arch and room.arch not in ARCHES:
        return f"no guest here is of {room.arch}"
    if need.cpus > room.cpus:
        return f"{need.cpus} CPUs are more than the {room.cpus:g} left"
    if need.memory > room.memory:
        return f"{_mib(need.memory)} of memory are more than the {_mib(room.memory)} left"
    if need.spread and need.spread in room.spread:
        return f"has a machine of the group {need.spread}, which is spread"
    if homes and room.name not in homes:
        return f"the group {need.together} is together on {', '.join(sorted(homes))}"
    nodes = _one_node(need, room) or _many_nodes(need, room)
    if isinstance(nodes, str):
        return nodes
    return Fit(nodes, bool(need.arch and need.arch != room.arch))


def _one_node(need: Need, room: Room) -> tuple[int, ...]:
    """The node that holds all of it and has the least left then; empty where none does."""
    left, found = 0, -1
    for node in room.nodes:
        if (
            need.cpus <= node.cpus
            and need.memory <= node.memory
            and (not need.page or need.pages <= node.pages.get(need.page, 0))
            and (not need.near or need.near in node.beside)
            and (not need.devices or all(count <= node.devices.get(kind, 0) for kind, count in need.devices.items()))
            and (found < 0 or node.memory < left)
        ):
            left, found = node.memory, node.number
    return () if found < 0 else (found,)


def _many_nodes(need: Need, room: Room) -> tuple[int, ...] | str:
    """The nodes over which it is spread where no single one holds it, or why they do not either."""
    if need.near:
        return f"no memory node beside a device {need.near} has room for all of it"
    for kind, count in need.devices.items():
        if count > (left := sum(node.devices.get(kind, 0) for node in room.nodes)):
            return f"{count} devices {kind} are more than the {left} left"
    if need.page and need.pages > (left := sum(node.pages.get(need.page, 0) for node in room.nodes)):
        return f"{need.pages} huge pages of {_mib(need.page)} are more than the {left} left"
    if need.memory > (memory := sum(node.memory for node in room.nodes)):
        return f"{_mib(need.memory)} of memory are more than the {_mib(memory)} left on all nodes"
    if need.cpus > (cpus := sum(max(node.cpus, 0) for node in room.nodes)):
        return f"{need.cpus} CPUs are more than the {cpus:g} left on all nodes"
    return tuple(node.number for node in room.nodes if node.memory > 0 or node.cpus > 0 or node.pages or node.devices)


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"


def cost(need: Need, room: Room, where: Fit, homes: frozenset[str] = frozenset()) -> tuple[float, ...]:
    """What it costs to have it there, the first difference deciding.

    A processor of another kind; free devices, or huge pages, that it does not ask for and others will; memory on many nodes;
    then what stays free, and how unevenly: CPUs without memory, or memory without CPUs, serve nobody. The first of a group
    that is to be together goes where more like it have room.
    """
    kinds = sum(1 for node in room.nodes for kind, left in node.devices.items() if left and kind not in need.devices)
    pages = sum(1 for node in room.nodes for page, left in node.pages.items() if left and page != need.page)
    cpus = (room.cpus - need.cpus) / room.all_cpus
    memory = (room.memory - need.memory) / room.all_memory
    more = need.together and not homes and (room.cpus < _GROUP * need.cpus or room.memory < _GROUP * need.memory)
    return (where.emulated, bool(more), kinds > 0, pages > 0, len(where.nodes) > 1, cpus + memory + abs(cpus - memory))


def best(need: Need, rooms: Sequence[Room]) -> tuple[Room, Fit] | None:
    """The host to take, and where on it; None where no host has room. Equals are taken in their order."""
    homes = _homes(need, rooms)
    chosen: tuple[Room, Fit] | None = None
    lowest: tuple[float, ...] = ()
    for room in rooms:
        where = fit(need, room, homes)
        if isinstance(where, Fit) and (chosen is None or (found := cost(need, room, where, homes)) < lowest):
            chosen, lowest = (room, where), cost(need, room, where, homes) if chosen is None else found
    return chosen


def verdicts(need: Need, rooms: Sequence[Room]) -> list[Verdict]:
    """What is to be said of every host: the best first, then those without room."""
    homes = _homes(need, rooms)
    found = []
    for room in rooms:
        where = fit(need, room, homes)
        if isinstance(where, str):
            found.append(Verdict(room.name, None, (), where))
        else:
            found.append(Verdict(room.name, where, cost(need, room, where, homes), _told(need, room, where)))
    return sorted(found, key=lambda one: (one.fit is None, one.cost))


def _homes(need: Need, rooms: Iterable[Room]) -> frozenset[str]:
    return frozenset(room.name for room in rooms if need.together in room.together) if need.together else frozenset()


def _told(need: Need, room: Room, where: Fit) -> str:
    one = f"all on memory node {where.nodes[0]}" if len(where.nodes) == 1 else f"over {len(where.nodes)} memory nodes"
    emulated, _, kinds, pages, *_ = cost(need, room, where)
    remarks = [
        one,
        f"leaves {room.cpus - need.cpus:g} of {room.all_cpus:g} CPUs",
        f"and {_mib(room.memory - need.memory)} of {_mib(room.all_memory)}",
        f"an {need.arch} guest is emulated there" if emulated else "",
        "has free devices it does not ask for" if kinds else "",
        "has free huge pages it does not ask for" if pages else "",
    ]
    return ", ".join(filter(None, remarks))


def take(need: Need, room: Room, where: Fit) -> Room:
    """The host with the machine on it. Over several nodes each gives what it has, in turn."""
    cpus, memory, pages = float(need.cpus), need.memory, need.pages
    devices = dict(need.devices)
    nodes = []
    for node in room.nodes:
        if node.number not in where.nodes:
            nodes.append(node)
            continue
        mine_cpus, mine_memory = min(cpus, max(node.cpus, 0)), min(memory, node.memory)
        mine_pages = min(pages, node.pages.get(need.page, 0))
        mine = {kind: min(count, node.devices.get(kind, 0)) for kind, count in devices.items()}
        cpus, memory, pages = cpus - mine_cpus, memory - mine_memory, pages - mine_pages
        devices = {kind: count - mine[kind] for kind, count in devices.items()}
        left = {**node.pages, need.page: node.pages[need.page] - mine_pages} if mine_pages else node.pages
        others = {kind: count - mine.get(kind, 0) for kind, count in node.devices.items()} if need.devices else node.devices
        nodes.append(replace(node, cpus=node.cpus - mine_cpus, memory=node.memory - mine_memory, pages=left, devices=others))
    return replace(
        room,
        cpus=room.cpus - need.cpus,
        memory=room.memory - need.memory,
        nodes=tuple(nodes),
        spread=(*room.spread, need.spread) if need.spread else room.spread,
        together=(*room.together, need.together) if need.together else room.together,
    )
