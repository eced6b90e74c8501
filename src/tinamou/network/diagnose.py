"""What slows a machine's network down or stops it: judged from what was seen, worst first, each with cost and fix. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tinamou.late import dataclass, replace
from tinamou.network import remedies
from tinamou.network.nics import GuestSide, HostSide, NicView
from tinamou.network.remedies import Describe, HostUp, PlugIn, Remedy, Serve, Unshape

__all__ = ["CHECKS", "DEAD", "NicFinding", "Surroundings", "diagnose"]

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
class NicFinding:
    """One cause: ``cost`` says what it takes away, ``fix`` what to do, ``remedy`` what can be done about it at once."""

    nic: str
    cause: str
    evidence: str
    cost: str
    fix: str
    weight: int
    remedy: Remedy | None = None


FORGED = 100
"""Dropped packets that are no accident any more."""

_SET = "tinamou net set NAME NIC"

_Found = tuple[str, str, str, str, int, Remedy | None]
"""A finding but for the card it is about."""
Check = Callable[[NicView, Surroundings], Iterator[_Found]]


def diagnose(every: Sequence[tuple[NicView, Surroundings]]) -> list[NicFinding]:
    """All findings, the most expensive first."""
    found = [
        replace(finding, fix=finding.fix.replace("NAME", around.machine).replace("NIC", nic.id.removesuffix("-dev")))
        for nic, around in every
        for check in CHECKS
        for finding in (NicFinding(nic.id, *said) for said in check(nic, around))
    ]
    return sorted(found, key=lambda finding: -finding.weight)


def _unplugged(nic: NicView, _: Surroundings) -> Iterator[_Found]:
    if nic.guest and nic.guest.up and not nic.guest.carrier:
        seen = f"the guest's {nic.guest.name} sees no cable"
        fix = "plug it in: tinamou net link NAME up --nic NIC"
        yield "the virtual cable is unplugged", seen, "nothing passes", fix, DEAD + 3, PlugIn(nic.id)


def _no_driver(nic: NicView, _: Surroundings) -> Iterator[_Found]:
    if nic.unseen:
        seen = f"the guest has no interface for {nic.id} ({nic.model})"
        virtio = nic.model.startswith("virtio")
        fix = "install the driver in the guest" + ("" if virtio else f", or {_SET} model=virtio --restart")
        remedy = None if virtio else Describe({"model": "virtio"})
        yield "the guest has no driver for the card", seen, "nothing passes", fix, DEAD + 4, remedy


def _guest_down(nic: NicView, _: Surroundings) -> Iterator[_Found]:
    guest = nic.guest
    if guest and not guest.up:
        fix = f"in the guest: ip link set {guest.name} up"
        seen = f"{guest.name} in the guest is down"
        yield "the guest's interface is down", seen, "nothing passes", fix, DEAD + 2, remedies.up(guest.name)


def _host_down(nic: NicView, _: Surroundings) -> Iterator[_Found]:
    host = nic.host
    if host and not host.up:
        fix = f"ip link set {host.name} up"
        seen = f"{host.name} on the host is down"
        yield "the host's interface is down", seen, "nothing passes", fix, DEAD + 1, HostUp(host.name)
    if nic.link and host is None:
        seen = f"there is no {nic.link} in this network namespace"
        fix = "start the machine anew: tinamou net diagnose NAME --fix --restart"
        yield "the host's interface is gone", seen, "nothing passes", fix, DEAD + 1, Describe({})


def _server_dead(nic: NicView, around: Surroundings) -> Iterator[_Found]:
    if around.server is False:
        seen = "the network's dnsmasq does not run"
        fix = "start it again: tinamou net diagnose NAME --fix"
        cost = "no addresses for new guests, no names"
        yield "the network's DHCP and name server is dead", seen, cost, fix, DEAD - 5, Serve()


def _no_address(nic: NicView, around: Surroundings) -> Iterator[_Found]:
    guest = nic.guest
    if guest and guest.up and not any("." in one for one in guest.addresses):
        fix = "start DHCP in the guest, or give it net.address"
        asks = remedies.leased_anew(guest.name) if around.address or nic.backend == "user" else None
        yield "the guest has no IPv4 address", f"{guest.name} has none", "no IPv4", fix, DEAD - 10, asks
    own = [one.partition("/")[0] for one in guest.addresses] if guest else []
    if around.address and own and around.address not in own:
        seen = f"the guest has {', '.join(own)}, the network leased it {around.address}"
        fix = "let the guest use DHCP, or set net.anti_spoof = false"
        remedy = remedies.leased_anew(guest.name) if guest else None
        yield "the guest uses an address that is not its own", seen, "its packets are dropped", fix, DEAD - 4, remedy


def _foreign_mac(nic: NicView, around: Surroundings) -> Iterator[_Found]:
    guest = nic.guest
    if around.mac and guest and guest.mac != around.mac:
        seen = f"the guest's {guest.name} has {guest.mac}, the machine was given {around.mac}"
        fix = f"in the guest: ip link set {guest.name} address {around.mac}; or set net.anti_spoof = false"
        remedy = remedies.fixed_mac(guest.name, around.mac)
        yield "the guest changed its MAC address", seen, "its packets are dropped", fix, DEAD - 3, remedy


def _emulated(nic: NicView, around: Surroundings) -> Iterator[_Found]:
    """On QEMU's own TCP/IP the card alone does not help: without offloads the guest cuts and sums what e1000 did for it."""
    if not nic.model.startswith("virtio"):
        cost = "several times the latency, a fraction of the throughput: every packet costs emulated register accesses"
        remedy = Describe({"model": "virtio", **(_better(around) if nic.backend == "user" else {})})
        fix = f"{_SET} {remedy.words()} --restart"
        seen = f"QEMU's card {nic.id} is {nic.model}"
        yield f"{nic.model} is emulated hardware", seen, cost, fix, SLOW + 5, remedy


def _better(around: Surroundings) -> dict[str, str | int]:
    """What carries more than QEMU's own TCP/IP here, empty where nothing does that leads the same ports in.

    The machine was alone on its nic, and stays so: a bridge is one of its own.
    """
    if around.root:
        return {"type": "bridge", "network": around.machine}
    return {"type": "passt"} if around.passt and not around.forwards else {}


def _slirp(nic: NicView, around: Surroundings) -> Iterator[_Found]:
    if nic.backend == "user":
        better = Describe(_better(around))
        install = "" if around.passt or around.root else ", after installing passt"
        cost = "all traffic passes through a TCP/IP stack inside QEMU, one packet at a time and without offloads"
        seen = f"{nic.id} is on {nic.backend}"
        fix = f"{_SET} {better.words() or 'type=passt'} --restart{install}"
        remedy = better if better.fields else None
        yield "QEMU's own TCP/IP (slirp) carries the traffic", seen, cost, fix, SLOW, remedy


def _vhost(nic: NicView, around: Surroundings) -> Iterator[_Found]:
    if nic.backend == "tap" and not nic.vhost and nic.model.startswith("virtio"):
        fix = f"{_SET} vhost=auto --restart" if around.vhost else "modprobe vhost_net, where the kernel has it"
        remedy = Describe({"vhost": "auto"}) if around.vhost else None
        seen = "vhost is off" if around.vhost else "the host has no /dev/vhost-net"
        weight = SLOWER if around.vhost else WORTH - 5
        yield "packets pass through QEMU, not through the kernel", seen, "a copy and a wake-up each", fix, weight, remedy


def _queues(nic: NicView, _: Surroundings) -> Iterator[_Found]:
    guest = nic.guest
    if guest and nic.backend == "tap" and guest.cpus > 1 and nic.queues < min(guest.cpus, 16):
        seen = f"{nic.queues} queue pairs for {guest.cpus} virtual CPUs"
        cost = "virtual CPUs wait for one another to send and receive"
        yield "fewer queues than virtual CPUs", seen, cost, f"{_SET} queues=0 --restart", SLOWER - 5, Describe({"queues": 0})


def _mtu(nic: NicView, _: Surroundings) -> Iterator[_Found]:
    guest, host = nic.guest, nic.host
    if not guest or not host:
        return
    path = min(filter(None, (host.mtu, host.master_mtu)), default=host.mtu)
    if guest.mtu > path:
        seen = f"the guest sends up to {guest.mtu} bytes, {host.master or host.name} passes {path}"
        fix = f"in the guest: ip link set {guest.name} mtu {path}"
        remedy = remedies.resized(guest.name, path)
        yield "large packets of the guest are lost", seen, "connections hang", fix, DEAD - 20, remedy
    elif guest.mtu < path:
        seen = f"the guest sends up to {guest.mtu} bytes, the path passes {path}"
        fix = f"in the guest: ip link set {guest.name} mtu {path}"
        cost = "more packets for the same data"
        yield "the guest's packets are smaller than need be", seen, cost, fix, WORTH, remedies.resized(guest.name, path)


def _offloads(nic: NicView, _: Surroundings) -> Iterator[_Found]:
    guest = nic.guest
    wanted = ("tx-checksumming", "tcp-segmentation-offload", "generic-receive-offload")
    off = [name for name in wanted if guest and guest.features.get(name) is False]
    if guest and off and nic.backend == "tap":
        fix = f"in the guest: ethtool -K {guest.name} tx on tso on gro on"
        cost = "the guest cuts and sums every packet itself"
        seen = f"off in the guest: {', '.join(off)}"
        yield "offloads are off", seen, cost, fix, SLOWER, remedies.offloaded(guest.name)


def _forges(nic: NicView, around: Surroundings) -> Iterator[_Found]:
    if around.forged > FORGED:
        seen = f"{around.forged} packets with another's MAC, IP or ARP address were dropped"
        fix = "find out which program sends them; for a router or containers on the nic: {} anti_spoof=false --restart"
        cost = "they do not pass, and neither does what answers them"
        yield "the guest sends packets that are not its own", seen, cost, fix.format(_SET), SLOWER - 2, None


def _shaped(nic: NicView, around: Surroundings) -> Iterator[_Found]:
    if nic.host and nic.host.shaping:
        fix = f"tc qdisc delete dev {nic.host.name} root"
        remedy = Unshape(nic.host.name)
        cost = "traffic to the guest is delayed or limited"
        yield "a queueing discipline holds packets back", nic.host.shaping, cost, fix, SLOW + 10, remedy
    for way, rate in (("in", around.rate_in), ("out", around.rate_out)):
        if rate:
            cost = f"at most {rate} a second"
            fix = f"tinamou net rate NAME --nic NIC --{way} off"
            yield f"a rate limit is set (rate_{way})", f"net.rate_{way} = {rate}", cost, fix, SLOW - 10, None


def _dropped(nic: NicView, _: Surroundings) -> Iterator[_Found]:
    for name, side in (("the guest", nic.guest), ("the host's interface", nic.host)):
        lost = _lost(side)
        if lost > 100:
            cost = "what is dropped is sent again, later"
            fix = f"{_SET} queue_size=1024 --restart; look at the CPU load of the host"
            yield f"{name} drops packets", f"{lost} dropped or in error", cost, fix, SLOWER + 5, None


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
