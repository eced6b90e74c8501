"""What the host's network offers to one machine, and what was leased to it there."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.late import dataclass, field


@dataclass(frozen=True)
class Link:
    """A network interface of the host: its kind as the kernel calls it (``bridge``, ``tun``; empty for hardware) and MTU."""

    name: str
    kind: str
    mtu: int = 1500
    queues: int = 1


@dataclass(frozen=True)
class NetFacts:
    """``leased`` are the addresses reserved for this machine on networks tinamou makes, by interface number.

    ``subnets`` are those networks' addresses by name. ``ovs`` maps Open vSwitch bridges to their datapath type (``system``,
    ``netdev``); ``ovs_problem`` says why they could not be read, ``ovs_dpdk`` whether the switch runs with DPDK.
    ``default_route`` tells whether there is a way out, ``user_namespaces`` whether a process may make one (in a chroot and
    in most containers it may not). ``hears_routers`` are interfaces whose IPv6 comes from router announcements, which the
    kernel stops listening to once this host forwards IPv6. ``resolver`` is an IPv4 name server of this host's, if it can be
    one that others reach too. ``apart`` says of a machine that runs that its QEMU was started in a network of its own.
    """

    default_route: bool = True
    user_namespaces: bool = True
    links: Mapping[str, Link] = field(default_factory=dict)
    ovs: Mapping[str, str] = field(default_factory=dict)
    ovs_problem: str = ""
    ovs_dpdk: bool = False
    resolver: str = ""
    hears_routers: tuple[str, ...] = ()
    leased: Mapping[int, str] = field(default_factory=dict)
    subnets: Mapping[str, str] = field(default_factory=dict)
    apart: bool = False
