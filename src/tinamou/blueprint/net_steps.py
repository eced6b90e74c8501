"""Steps that concern the host's network; each is undone when the machine ends, and nothing made by others is changed."""

from __future__ import annotations

from tinamou.blueprint.element import Why
from tinamou.late import dataclass


@dataclass(frozen=True)
class ReservePort:
    """Find out before anything else is done that a port of the host is free; takes nothing."""

    protocol: str
    address: str
    port: int
    why: Why

    @property
    def name(self) -> str:
        """What it is about, for people."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.protocol} {address}:{self.port}"


@dataclass(frozen=True)
class MakeTap:
    """Make a tap interface; it vanishes with the last process that holds it open, undone by removing it."""

    name: str
    queues: int
    why: Why
    mtu: int = 0


@dataclass(frozen=True)
class MakeMacvtap:
    """Make a macvtap interface on ``parent``; undone by removing it."""

    name: str
    parent: str
    mac: str
    why: Why
    mtu: int = 0


@dataclass(frozen=True)
class OpenTap:
    """Open every queue of a tap or macvtap interface before QEMU starts, with vhost where requested; QEMU gets descriptors.

    A tap that is ``ours`` ends with the last process that holds it open from then on.
    """

    name: str
    queues: int
    why: Why
    vhost: bool = False
    offload: bool = True
    ours: bool = False


@dataclass(frozen=True)
class JoinBridge:
    """Make ``link`` a port of a bridge that exists; undone with the link. ``alone``: not together with other such ports."""

    name: str
    bridge: str
    mac: str
    why: Why
    alone: bool = False
    quiet: bool = True


@dataclass(frozen=True)
class JoinOvs:
    """Make ``name`` a port of an Open vSwitch bridge; undone by deleting the port. Rates are bytes a second, 0: none.

    With ``socket`` the switch itself reads the guest's memory, over the vhost-user socket QEMU listens on there. With
    ``bond`` the interface becomes one member of the port of that name; ``bond_mode`` and ``lacp`` are the port's.
    """

    name: str
    bridge: str
    machine: str
    why: Why
    vlan: int = 0
    trunk: tuple[int, ...] = ()
    rate_out: int = 0
    rate_in: int = 0
    socket: str = ""
    bond: str = ""
    bond_mode: str = ""
    lacp: str = ""


@dataclass(frozen=True)
class ClaimSocket:
    """Write down a socket outside the machine's folder that QEMU will listen on; undone by removing it.

    With ``target`` it is a link to the socket there, which QEMU makes itself.
    """

    path: str
    why: Why
    target: str = ""


@dataclass(frozen=True)
class ReachSocket:
    """Find out that another program's socket is there, and open to ``owner``, as whom QEMU runs; takes nothing."""

    path: str
    why: Why
    owner: int | None = None


@dataclass(frozen=True)
class JoinNetwork:
    """Be a member of a network that tinamou makes: bridge, addresses, DHCP and names come with the first member and go
    with the last; undone by leaving.

    ``member`` is MACHINE.NUMBER; ``forwards`` are (protocol, address, host port, guest port); with ``onward6`` IPv6 leads
    beyond the host.
    """

    network: str
    bridge: str
    subnet: str
    prefix6: str
    isolated: bool
    host: bool
    member: str
    machine: str
    mac: str
    address: str
    address6: str
    why: Why
    forwards: tuple[tuple[str, str, int, int], ...] = ()
    mtu: int = 0
    onward6: bool = False

    @property
    def name(self) -> str:
        """What it is about, for people."""
        return f"{self.network} as {self.address}"


@dataclass(frozen=True)
class SetRules:
    """Filter what passes an interface by rules in tinamou's own table; undone by removing exactly these.

    ``rules`` are the statements of nft(8) that fill the chains ``in-NAME`` (sent by the guest) and ``out-NAME``.
    """

    name: str
    rules: str
    why: Why


NetStep = (
    ReservePort | ReachSocket | ClaimSocket | MakeTap | MakeMacvtap | OpenTap | JoinBridge | JoinOvs | JoinNetwork | SetRules
)
