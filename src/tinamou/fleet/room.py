"""What a host has left for machines: of this one, of a recorded one, and as another host told it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.errors import HostError, SpecError
from tinamou.facts import HostFacts
from tinamou.facts.pci import PciFacts
from tinamou.fleet.placement import Need, Node, Room, need_of
from tinamou.machine.host_side import leased
from tinamou.machine.passthrough import pci_facts
from tinamou.probe.host import probe_host
from tinamou.probe.pci import probe_pci
from tinamou.spec import load_spec
from tinamou.state import machines
from tinamou.system.rooted import Rooted
from tinamou.units import CpuSet

__all__ = ["plain", "recorded", "room_of", "this_room", "told"]

_KEPT_FREE = 32
"""This part of a host's memory is left to it, as when a machine is admitted (`tuning.admission`)."""


def this_room(name: str) -> Room:
    """What this host has left beside the machines that run on it; those at rest hold nothing."""
    held = leased("")
    taken = CpuSet(cpu for cpus in held.values() for cpu in cpus)
    running = [record.spec for record in machines.awake() if record.running]
    return room_of(name, probe_host(), pci_facts(), [_need(spec) for spec in running], taken)


def _need(spec: Mapping[str, Any]) -> Need:
    try:
        return need_of(load_spec(spec))
    except SpecError:  # a description of another version: what is free of the memory tells of it
        return Need("", 0, 0)


def recorded(folder: Path) -> Room:
    """What the host whose /proc and /sys lie in a folder has, with no machine on it."""
    return room_of(folder.name, probe_host(str(folder)), probe_pci(Rooted(str(folder)), {}))


def room_of(name: str, host: HostFacts, pci: PciFacts, running: Sequence[Need] = (), pinned: CpuSet | None = None) -> Room:
    """What is left where these machines run, and hold the CPUs ``pinned`` for themselves. A virtual CPU counts as one."""
    usable, mine = host.usable_cpus, pinned or CpuSet()
    kept = host.memory // _KEPT_FREE
    promised = sum(one.memory + one.page * one.pages for one in running)
    free, beside = _devices(pci, host.nodes[0].number if host.nodes else 0)
    nodes = tuple(
        Node(
            one.number,
            float(len(one.cpus & usable - mine)),
            max(one.free - one.memory // _KEPT_FREE, 0),
            {page: left for page, (_, left) in one.hugepages.items() if left},
            free.get(one.number, {}),
            frozenset(beside.get(one.number, ())),
        )
        for one in host.nodes
    )
    return Room(
        name,
        host.arch,
        float(len(usable) - sum(one.cpus for one in running)),
        max(min(host.memory_available - kept, host.memory - kept - promised), 0),
        float(len(usable)),
        host.memory,
        nodes,
        tuple(one.spread for one in running if one.spread),
        tuple(one.together for one in running if one.together),
    )


def _devices(pci: PciFacts, first: int) -> tuple[dict[int, dict[str, int]], dict[int, set[str]]]:
    """Node → kind → how many cards a guest could have; and the kinds that are there. Unknown places are the first node's."""
    free: dict[int, dict[str, int]] = {}
    beside: dict[int, set[str]] = {}
    seen = set()
    for one in pci.devices:
        card = (late.replace(one.address, function=0) if not one.virtual else one.address, one.ids)
        if one.is_bridge or card in seen:
            continue
        seen.add(card)
        node = one.node if one.node >= 0 else first
        beside.setdefault(node, set()).add(one.ids)
        if one.group is not None and not one.uses and not pci.holder(one):
            kinds = free.setdefault(node, {})
            kinds[one.ids] = kinds.get(one.ids, 0) + 1
    return free, beside


def plain(room: Room) -> dict[str, Any]:
    """As JSON has it."""
    shown = late.asdict(room)
    return {**shown, "nodes": [{**node, "beside": sorted(node["beside"])} for node in shown["nodes"]]}


def told(name: str, data: Any) -> Room:
    """What another host said it has left, under the name it is known by here. Raises HostError for what is none of it."""
    try:
        nodes = tuple(
            Node(
                int(one["number"]),
                float(one["cpus"]),
                int(one["memory"]),
                {int(page): int(left) for page, left in one["pages"].items()},
                {str(kind): int(left) for kind, left in one["devices"].items()},
                frozenset(map(str, one["beside"])),
            )
            for one in data["nodes"]
        )
        groups = [tuple(map(str, data[key])) for key in ("spread", "together")]
        cpus, every = float(data["cpus"]), max(float(data["all_cpus"]), 1.0)
        memory, whole = int(data["memory"]), max(int(data["all_memory"]), 1)
        return Room(name, str(data["arch"]), cpus, memory, every, whole, nodes, *groups)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise HostError(f"{name} does not say what it has left", why=repr(error)) from error
