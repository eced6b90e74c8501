"""What slows a machine's network down or stops it: judged from what was seen, worst first, each with cost and fix. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tinamou.late import dataclass
from tinamou.network import remedies
from tinamou.network.remedies import Describe, HostUp, PlugIn, Remedy, Serve, Unshape
from tinamou.network.wires import GuestSide, HostSide, Wire

__all__ = ["CHECKS", "DEAD", "Finding", "Surroundings", "diagnose"]

DEAD, SLOW, SLOWER, WORTH = 100, 60, 40, 20
"""Weights: nothing passes (above it: nothing at all, so nothing is measured); several times slower; noticeably slower; worth
knowing."""


@dataclass(frozen=True)
class Surroundings:
    """What else matters for one interface: which backends this host offers, what the machine's entry asked for.

    ``server`` tells whether the network's DHCP and DNS answer, None where tinamou does not run them.
    """

    passt: bool = False
    root: bool = False
    vhost: bool = False
    server: bool | None = None
    address: str = ""
    mac: str = ""
    rate_in: str = ""
    rate_out: str = ""
    machine: str = "NAME"
    forwards: bool = False
    forged: int = 0


@dataclass(frozen=True)
class Finding:
    """One cause: ``cost`` says what it takes away, ``fix`` what to do, ``remedy`` what can be done about it at once."""

    wire: str
    cause: str
    evidence: str
    cost: str
    fix: str
    weight: int
    remedy: Remedy | None = None


FORGED = 100
"""Dropped packets that are no accident any more."""

_SET = "tinamou net set NAME NIC"

Check = Callable[[Wire, Surroundings], Iterator[Finding]]


def diagnose(every: Sequence[tuple[Wire, Surroundings]]) -> list[Finding]:
    """All findings, the most expensive first."""
    found = [
        replace(finding, fix=finding.fix.replace("NAME", around.machine).replace("NIC", wire.id.removesuffix("-dev")))
        for wire, around in every
        for check in CHECKS
        for finding in check(wire, around)
    ]
    return sorted(found, key=lambda finding: -finding.weight)


def _unplugged(wire: Wire, _: Surroundings) -> Iterator[Finding]:
    if wire.guest and wire.guest.up and not wire.guest.carrier:
        seen = f"the guest's {wire.guest.name} sees no cable"
        fix = "plug it in: tinamou net link NAME up --nic NIC"
        yield Finding(wire.id, "the virtual cable is unplugged", seen, "nothing passes", fix, DEAD + 3, PlugIn(wire.id))


def _no_driver(wire: Wire, _: Surroundings) -> Iterator[Finding]:
    if wire.unseen:
        seen = f"the guest has no interface for {wire.id} ({wire.model})"
        virtio = wire.model.startswith("virtio")
        fix = "install the driver in the guest" + ("" if virtio else f", or {_SET} model=virtio --restart")
        remedy = None if virtio else Describe({"model": "virtio"})
        yield Finding(wire.id, "the guest has no driver for the card", seen, "nothing passes", fix, DEAD + 4, remedy)


def _guest_down(wire: Wire, _: Surroundings) -> Iterator[Finding]:
    guest = wire.guest
    if guest and not guest.up:
        fix = f"in the guest: ip link set {guest.name} up"
        seen = f"{guest.name} in the guest is down"
        yield Finding(
            wire.id, "the guest's interface is down", seen, "nothing passes", fix, DEAD + 2, remedies.up(guest.name)
        )


def _host_down(wire: Wire, _: Surroundings) -> Iterator[Finding]:
    host = wire.host
    if host and not host.up:
        fix = f"ip link set {host.name} up"
        seen = f"{host.name} on the host is down"
        yield Finding(wire.id, "the host's interface is down", seen, "nothing passes", fix, DEAD + 1, HostUp(host.name))
    if wire.link and host is None:
        seen = f"there is no {wire.link} in this network namespace"
        fix = "start the machine anew: tinamou net diagnose NAME --fix --restart"
        yield Finding(wire.id, "the host's interface is gone", seen, "nothing passes", fix, DEAD + 1, Describe({}))


def _server_dead(wire: Wire, around: Surroundings) -> Iterator[Finding]:
    if around.server is False:
        seen = "the network's dnsmasq does not run"
        fix = "start it again: tinamou net diagnose NAME --fix"
        cost = "no addresses for new guests, no names"
        yield Finding(wire.id, "the network's DHCP and name server is dead", seen, cost, fix, DEAD - 5, Serve())


def _no_address(wire: Wire, around: Surroundings) -> Iterator[Finding]:
    guest = wire.guest
    if guest and guest.up and not any("." in one for one in guest.addresses):
        fix = "start DHCP in the guest, or give it net.address"
        asks = remedies.leased_anew(guest.name) if around.address or wire.backend == "user" else None
        yield Finding(wire.id, "the guest has no IPv4 address", f"{guest.name} has none", "no IPv4", fix, DEAD - 10, asks)
    own = [one.partition("/")[0] for one in guest.addresses] if guest else []
    if around.address and own and around.address not in own:
        seen = f"the guest has {', '.join(own)}, the network lent it {around.address}"
        fix = "let the guest use DHCP, or set net.anti_spoof = false"
        yield Finding(
            wire.id,
            "the guest uses an address that is not its own",
            seen,
            "its packets are dropped",
            fix,
            DEAD - 4,
            remedies.leased_anew(guest.name) if guest else None,
        )


def _foreign_mac(wire: Wire, around: Surroundings) -> Iterator[Finding]:
    guest = wire.guest
    if around.mac and guest and guest.mac != around.mac:
        seen = f"the guest's {guest.name} has {guest.mac}, the machine was given {around.mac}"
        fix = f"in the guest: ip link set {guest.name} address {around.mac}; or set net.anti_spoof = false"
        remedy = remedies.fixed_mac(guest.name, around.mac)
        yield Finding(wire.id, "the guest changed its MAC address", seen, "its packets are dropped", fix, DEAD - 3, remedy)


def _emulated(wire: Wire, around: Surroundings) -> Iterator[Finding]:
    """On QEMU's own TCP/IP the card alone does not help: without offloads the guest cuts and sums what e1000 did for it."""
    if not wire.model.startswith("virtio"):
        cost = "several times the latency, a fraction of the throughput: every packet costs emulated register accesses"
        remedy = Describe({"model": "virtio", **(_better(around) if wire.backend == "user" else {})})
        fix = f"{_SET} {remedy.words()} --restart"
        seen = f"QEMU's card {wire.id} is {wire.model}"
        yield Finding(wire.id, f"{wire.model} is emulated hardware", seen, cost, fix, SLOW + 5, remedy)


def _better(around: Surroundings) -> dict[str, str | int]:
    """What carries more than QEMU's own TCP/IP here, empty where nothing does that leads the same ports in.

    The machine was alone on its wire, and stays so: a bridge is one of its own.
    """
    if around.root:
        return {"type": "bridge", "network": around.machine}
    return {"type": "passt"} if around.passt and not around.forwards else {}


def _slirp(wire: Wire, around: Surroundings) -> Iterator[Finding]:
    if wire.backend == "user":
        better = Describe(_better(around))
        install = "" if around.passt or around.root else ", after installing passt"
        cost = "all traffic passes through a TCP/IP stack inside QEMU, one packet at a time and without offloads"
        seen = f"{wire.id} is on {wire.backend}"
        yield Finding(
            wire.id,
            "QEMU's own TCP/IP (slirp) carries the traffic",
            seen,
            cost,
            f"{_SET} {better.words() or 'type=passt'} --restart{install}",
            SLOW,
            better if better.fields else None,
        )


def _vhost(wire: Wire, around: Surroundings) -> Iterator[Finding]:
    if wire.backend == "tap" and not wire.vhost and wire.model.startswith("virtio"):
        fix = f"{_SET} vhost=auto --restart" if around.vhost else "modprobe vhost_net, where the kernel has it"
        remedy = Describe({"vhost": "auto"}) if around.vhost else None
        seen = "vhost is off" if around.vhost else "the host has no /dev/vhost-net"
        weight = SLOWER if around.vhost else WORTH - 5
        yield Finding(
            wire.id,
            "packets pass through QEMU, not through the kernel",
            seen,
            "a copy and a wake-up each",
            fix,
            weight,
            remedy,
        )


def _queues(wire: Wire, _: Surroundings) -> Iterator[Finding]:
    guest = wire.guest
    if guest and wire.backend == "tap" and guest.cpus > 1 and wire.queues < min(guest.cpus, 16):
        seen = f"{wire.queues} queue pairs for {guest.cpus} virtual CPUs"
        cost = "virtual CPUs wait for one another to send and receive"
        yield Finding(
            wire.id,
            "fewer queues than virtual CPUs",
            seen,
            cost,
            f"{_SET} queues=0 --restart",
            SLOWER - 5,
            Describe({"queues": 0}),
        )


def _mtu(wire: Wire, _: Surroundings) -> Iterator[Finding]:
    guest, host = wire.guest, wire.host
    if not guest or not host:
        return
    path = min(filter(None, (host.mtu, host.master_mtu)), default=host.mtu)
    if guest.mtu > path:
        seen = f"the guest sends up to {guest.mtu} bytes, {host.master or host.name} passes {path}"
        fix = f"in the guest: ip link set {guest.name} mtu {path}"
        remedy = remedies.resized(guest.name, path)
        yield Finding(wire.id, "large packets of the guest are lost", seen, "connections hang", fix, DEAD - 20, remedy)
    elif guest.mtu < path:
        seen = f"the guest sends up to {guest.mtu} bytes, the path passes {path}"
        fix = f"in the guest: ip link set {guest.name} mtu {path}"
        cost = "more packets for the same data"
        yield Finding(
            wire.id,
            "the guest's packets are smaller than need be",
            seen,
            cost,
            fix,
            WORTH,
            remedies.resized(guest.name, path),
        )


def _offloads(wire: Wire, _: Surroundings) -> Iterator[Finding]:
    guest = wire.guest
    wanted = ("tx-checksumming", "tcp-segmentation-offload", "generic-receive-offload")
    off = [name for name in wanted if guest and guest.features.get(name) is False]
    if guest and off and wire.backend == "tap":
        fix = f"in the guest: ethtool -K {guest.name} tx on tso on gro on"
        cost = "the guest cuts and sums every packet itself"
        seen = f"off in the guest: {', '.join(off)}"
        yield Finding(wire.id, "offloads are off", seen, cost, fix, SLOWER, remedies.offloaded(guest.name))


def _forges(wire: Wire, around: Surroundings) -> Iterator[Finding]:
    if around.forged > FORGED:
        seen = f"{around.forged} packets with another's MAC, IP or ARP address were dropped"
        fix = "find out which program sends them; for a router or containers on the wire: {} anti_spoof=false --restart"
        cost = "they do not pass, and neither does what answers them"
        yield Finding(wire.id, "the guest sends packets that are not its own", seen, cost, fix.format(_SET), SLOWER - 2)


def _shaped(wire: Wire, around: Surroundings) -> Iterator[Finding]:
    if wire.host and wire.host.shaping:
        fix = f"tc qdisc delete dev {wire.host.name} root"
        remedy = Unshape(wire.host.name)
        cost = "traffic to the guest is delayed or limited"
        yield Finding(wire.id, "a queueing discipline holds packets back", wire.host.shaping, cost, fix, SLOW + 10, remedy)
    for way, rate in (("in", around.rate_in), ("out", around.rate_out)):
        if rate:
            cost = f"at most {rate} a second"
            fix = f"tinamou net rate NAME --nic NIC --{way} off"
            yield Finding(wire.id, f"a rate limit is set (rate_{way})", f"net.rate_{way} = {rate}", cost, fix, SLOW - 10)


def _dropped(wire: Wire, _: Surroundings) -> Iterator[Finding]:
    for name, side in (("the guest", wire.guest), ("the host's interface", wire.host)):
        lost = _lost(side)
        if lost > 100:
            cost = "what is dropped is sent again, later"
            fix = f"{_SET} queue_size=1024 --restart; look at the CPU load of the host"
            yield Finding(wire.id, f"{name} drops packets", f"{lost} dropped or in error", cost, fix, SLOWER + 5)


def _lost(side: GuestSide | HostSide | None) -> int:
    return (
        sum(side.counters.get(f"{way}_{what}", 0) for way in ("rx", "tx") for what in ("dropped", "errors")) if side else 0
    )


CHECKS: tuple[Check, ...] = (
    _no_driver,
    _unplugged,
    _guest_down,
    _host_down,
    _server_dead,
    _no_address,
    _foreign_mac,
    _emulated,
    _slirp,
    _vhost,
    _queues,
    _mtu,
    _offloads,
    _forges,
    _shaped,
    _dropped,
)
