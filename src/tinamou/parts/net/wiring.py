"""What a backend is given about one interface, and what it gives back."""

from __future__ import annotations

from tinamou.blueprint import Contribution
from tinamou.digest import sha256
from tinamou.facts import Facts
from tinamou.late import dataclass
from tinamou.parts.net.forwards import Forward
from tinamou.parts.net.spec import TAPS, NetSpec

__all__ = ["Nic", "Wired", "host_link", "link_name"]


def link_name(directory: str, number: int) -> str:
    """The name of a machine's interface on the host, from its directory: 13 of the 15 bytes the kernel allows."""
    return f"tm-{sha256(directory.encode()).hexdigest()[:8]}-{number}"


def host_link(spec: NetSpec, directory: str, number: int) -> str:
    """The interface on the host behind one of a machine's cards, empty where the backend has none."""
    if spec.type not in TAPS:
        return ""
    return spec.interface if spec.type == "tap" and spec.interface else link_name(directory, number)


@dataclass(frozen=True)
class Nic:
    """One interface: its number among the machine's, its MAC address, the ports that lead to it, the queues requested."""

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
    def inside(self) -> str:
        """The first three numbers of the addresses ``user`` and ``passt`` give the guest: each interface has its own."""
        return f"10.0.{2 + self.number % 250}"

    @property
    def link(self) -> str:
        """The name of its interface on the host, the same at every start and different for every machine."""
        return link_name(self.facts.place.directory, self.number)


@dataclass(frozen=True)
class Wired:
    """A backend's part of the plan, and what its other end lets the card do.

    ``outside``: another program takes the packets out of the guest's memory, and can do with longer rings than QEMU.
    """

    contribution: Contribution
    queues: int = 1
    offload: bool = True
    vhost: bool = False
    packed: bool = True
    mtu: int = 0
    outside: bool = False
