"""What a backend is given about one interface, and what it gives back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from tinamou.blueprint import Contribution, Value
from tinamou.facts import Facts
from tinamou.parts.net.spec import Forward, NetSpec

__all__ = ["Nic", "Wired", "link_name"]


def link_name(directory: str, number: int) -> str:
    """The name of a machine's interface on the host, from its directory: 13 of the 15 bytes the kernel allows."""
    return f"tm-{hashlib.sha256(directory.encode()).hexdigest()[:8]}-{number}"


@dataclass(frozen=True, slots=True)
class Nic:
    """One interface: its number among the machine's, its MAC address, the ports that lead to it, the queues wished."""

    number: int
    spec: NetSpec
    mac: str
    forwards: tuple[Forward, ...]
    queues: int
    facts: Facts

    @property
    def id(self) -> str:
        """Its netdev's name inside QEMU."""
        return f"net{self.number}"

    @property
    def link(self) -> str:
        """The name of its interface on the host, the same at every start and different for every machine."""
        return link_name(self.facts.place.directory, self.number)


@dataclass(frozen=True, slots=True)
class Wired:
    """A backend's part of the plan, and what its other end lets the card do."""

    contribution: Contribution
    queues: int = 1
    offload: bool = True
    vhost: bool = False
    packed: bool = True
    mtu: int = 0
    card: dict[str, Value] = field(default_factory=dict)
