"""Network interfaces: one file for each backend on the host's side, and the card on the guest's side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from tinamou.blueprint import Contribution, Note, Why
from tinamou.errors import Problem
from tinamou.late import replace
from tinamou.parts.net import passt, ssh_card
from tinamou.parts.net.card import card, notes
from tinamou.parts.net.forwards import forwards_of, is_ipv6
from tinamou.parts.net.spec import NetSpec, interfaces, mac_of
from tinamou.parts.net.wiring import Nic, Wired
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved, SharedMemory
from tinamou.parts.seed import FixedAddress

__all__ = ["PART", "NetSpec", "fixed", "interfaces", "kernel_words", "mac_of", "macs"]


def _wired(nic: Nic) -> Wired:
    """The interface's wiring by its backend: most machines need one of them, which alone is imported."""
    match nic.spec.type:
        case "user":
            from tinamou.parts.net.user import contribute as wire
        case "passt":
            from tinamou.parts.net.passt import contribute as wire
        case "tap":
            from tinamou.parts.net.tap import contribute as wire
        case "bridge":
            from tinamou.parts.net.bridge import contribute as wire
        case "macvtap":
            from tinamou.parts.net.macvtap import contribute as wire
        case "ovs":
            from tinamou.parts.net.ovs import contribute as wire
        case "vhost-user":
            from tinamou.parts.net.vhost_user import contribute as wire
        case "stream":
            from tinamou.parts.net.stream import contribute as wire
        case "auto" | "none":
            raise ValueError(f"{nic.spec.type} is settled before anything is wired")
    return wire(nic)


def _specific(nic: Nic) -> list[Problem]:
    """What a backend in particular may lack here."""
    match nic.spec.type:
        case "bridge":
            from tinamou.parts.net.bridge import check as look
        case "macvtap":
            from tinamou.parts.net.macvtap import check as look
        case "ovs":
            from tinamou.parts.net.ovs import check as look
        case "vhost-user":
            from tinamou.parts.net.vhost_user import check as look
        case _:
            return []
    return look(nic)


def needs(resolved: Resolved) -> tuple[Need, ...]:
    """A PCI slot for each card; memory another program can see where it takes packets out of it."""
    specs, there = resolved.spec.net, interfaces(resolved.spec.net)
    shared = Why("spec net", "the program behind the vhost-user socket reads packets in the guest's memory")
    memory = [SharedMemory(shared) for spec in there.values() if spec.type == "vhost-user"]
    own = [PciSlot(ssh_card.DEVICE)] if ssh_card.wanted(specs, resolved.facts) else []
    return (*(PciSlot(f"net{number}-dev", spec.port) for number, spec in there.items()), *own, *memory)


def kernel_words(resolved: Resolved) -> dict[str, str]:
    """Fixed addresses as the kernel's own notation has them (source: Documentation/admin-guide/nfs/nfsroot.rst, ``ip=``).

    A guest of ours reads them itself, and is told a card by its address: names depend on which of them have a driver.
    """
    words, place = {}, resolved.facts.place
    ours = resolved.facts.image.agent
    for index, (number, spec) in enumerate(interfaces(resolved.spec.net).items()):
        if spec.address:
            from ipaddress import ip_interface

            own = ip_interface(spec.address)
            server = next(iter(spec.dns), "")
            card = mac_of(spec, place.known_as, number).replace(":", "-") if ours else f"eth{index}"
            word = f"ip={own.ip}::{spec.gateway}:{own.netmask}::{card}:off:{server}"
            words[word] = f"interface {number} has a fixed address"
    return words


def fixed(resolved: Resolved) -> dict[str, FixedAddress]:
    """Fixed addresses by the interface's name in the guest, as the seed tells them."""
    there = interfaces(resolved.spec.net).items()
    return {f"net{number}": FixedAddress(spec.address, spec.gateway, spec.dns) for number, spec in there if spec.address}


def macs(resolved: Resolved) -> dict[str, str]:
    """Hardware addresses by the interface's name in the guest."""
    specs, facts = resolved.spec.net, resolved.facts
    found = {f"net{number}": mac_of(one, facts.place.known_as, number) for number, one in interfaces(specs).items()}
    return {**found, **({"ssh0": ssh_card.mac(facts)} if ssh_card.wanted(specs, facts) else {})}


def nics(resolved: Resolved) -> list[Nic]:
    """The interfaces with what is decided about each."""
    specs, facts = resolved.spec.net, resolved.facts
    found, leads = [], ssh_card.leading(specs)
    for number, spec in interfaces(specs).items():
        forwards = [forward for text in spec.forward for forward in forwards_of(text)]
        if number == leads and facts.image.may_have_sshd and facts.place.ssh_port:
            forwards.append(("tcp", "127.0.0.1", facts.place.ssh_port, 22))
        queues = (spec.queues or min(resolved.spec.cpu.count, 16)) if spec.model == "virtio" else 1
        nic = Nic(number, spec, mac_of(spec, facts.place.known_as, number), tuple(forwards), queues, facts)
        found.append(replace(nic, spec=replace(spec, type=_chosen(nic, resolved))) if spec.type == "auto" else nic)
    return found


def _chosen(nic: Nic, resolved: Resolved) -> Literal["user", "passt"]:
    """QEMU's own stack where ports lead in: passt of Debian 12 hangs on what arrives before the guest's network is up.

    And in a forkable machine: its state is saved and forked with the machine. QEMU's own listens on IPv4 alone.
    """
    leads = nic.forwards and not nic.facts.net.apart and not any(map(is_ipv6, nic.forwards))
    inside = resolved.spec.memory.forkable or nic.spec.isolated or leads
    return "user" if inside or passt.missing(nic) or passt.nameless(nic) else "passt"


def check(resolved: Resolved) -> list[Problem]:
    """What the interfaces need and this host lacks, and what was asked for that other ends or the guest cannot do."""
    return [problem for nic in nics(resolved) for problem in (*_general(nic), *_specific(nic)) or _unmet(nic)]


def _unmet(nic: Nic) -> list[Problem]:
    path, spec, found = f"net[{nic.number}]", nic.spec, []
    there = _wired(nic).queues
    if max(spec.queues, 1) > there:
        reason = f"{spec.interface or spec.bridge or spec.type} has {there} here"
        found.append(Problem(f"{path}.queues", spec.queues, reason, f"set it to {there}, or leave it out"))
    if spec.rss and there < 2:
        reason = "there is one pair of queues, over which nothing can be spread"
        found.append(Problem(f"{path}.rss", True, reason, "set queues = 2 or more, or leave it out"))
    if nic.facts.image.disk:
        return found
    reason = f"{nic.facts.image.name} is told its address by kernel arguments"
    if ":" in spec.address:
        found.append(
            Problem(f"{path}.address", spec.address, f"{reason}, which know IPv4 alone", "use an image with cloud-init")
        )
    if len(spec.dns) > 1:
        found.append(Problem(f"{path}.dns", list(spec.dns), f"{reason}, with one name server", "name one"))
    return found


def _general(nic: Nic) -> Iterator[Problem]:
    path, spec, host = f"net[{nic.number}]", nic.spec, nic.facts.host
    if spec.type == "passt" and (reason := passt.missing(nic)):
        yield Problem(f"{path}.type", "passt", reason, "install passt, or use type user")
    if spec.type == "user" and nic.facts.net.apart and not spec.isolated:
        why = "QEMU's own TCP/IP needs this host's network, and this QEMU was started in one of its own"
        fix = "use passt; or stop the machine, add it, and start again"
        yield Problem(f"{path}.type", "user", why, fix)
    if any(map(is_ipv6, nic.forwards)) and (why := _no_ipv6(nic)):
        yield Problem(f"{path}.forward", list(spec.forward), why, "use type passt, or an IPv4 address of this host")
    makes = spec.type in ("bridge", "macvtap", "ovs") or (spec.type == "tap" and not spec.interface)
    if makes and not host.is_root:
        why = "only root may make interfaces on this host"
        fix = "run as root; or use type passt, or a tap made for you: ip tuntap add tap0 mode tap user $USER"
        yield Problem(f"{path}.type", spec.type, why, fix)
    if makes and spec.type != "macvtap" and "/dev/net/tun" not in host.devices:
        yield Problem(f"{path}.type", spec.type, "there is no /dev/net/tun", "modprobe tun")
    if spec.vhost == "on":
        from tinamou.parts.net.tap import no_vhost

        if reason := no_vhost(nic):
            yield Problem(f"{path}.vhost", "on", reason, "leave it out, or set it to auto")


def _no_ipv6(nic: Nic) -> str:
    """Why no port of an IPv6 address of the host can lead in, empty where it can."""
    if not nic.spec.ipv6:
        return "the interface has no IPv6 (ipv6 = false)"
    if nic.spec.type == "user":
        lacking = passt.missing(nic)
        return "QEMU's own TCP/IP listens on IPv4 alone" + (f", and {lacking}" if lacking else "")
    return "" if nic.spec.type == "passt" else "IPv4 alone is led into such a network"


def elements(resolved: Resolved) -> dict[int, Contribution]:
    """A netdev and a card for each interface, with what the host must do before."""
    return {nic.number: _interface(nic, resolved) for nic in nics(resolved)}


def contribute(resolved: Resolved) -> Contribution:
    """All interfaces, and the card that leads to the ssh server where none of them does."""
    return Contribution.merge([*elements(resolved).values(), ssh_card.contribute(resolved)])


def _interface(nic: Nic, resolved: Resolved) -> Contribution:
    wired = _wired(nic)
    said = (*notes(nic), *_fallen_back(nic, resolved))
    return Contribution.merge([wired.contribution, Contribution((card(nic, wired, resolved),), notes=said)])


def _fallen_back(nic: Nic, resolved: Resolved) -> tuple[Note, ...]:
    auto = resolved.spec.net[nic.number].type == "auto" and not resolved.spec.memory.forkable
    if nic.spec.type == "passt" and any(map(is_ipv6, nic.forwards)):
        why = "QEMU's own TCP/IP listens on IPv4 alone"
        text = f"ports lead in to network interface {nic.number} by passt, as {why}: with passt of Debian 12 none answers"
        return (Note("warning", text, Why("spec net.forward", why)),)
    if not auto or nic.spec.type != "user" or nic.spec.isolated or nic.facts.host.system != "Linux":
        return ()
    reason = passt.missing(nic) or passt.nameless(nic)
    if not reason:
        return ()
    text = f"network interface {nic.number} uses QEMU's own TCP/IP, the slowest backend: {reason}"
    return (Note("info", text, Why("default", reason)),)


PART = Part(contribute, needs, check, elements)
