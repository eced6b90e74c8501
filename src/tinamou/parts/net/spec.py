"""What a user writes about one network interface, and the notations inside: port forwards, rates, filters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from tinamou.digest import sha256
from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass, fields
from tinamou.parts.net.forwards import forwards_of
from tinamou.units import Mac

__all__ = ["MADE", "TAPS", "NetSpec", "interfaces", "mac_of", "parse_filter", "parse_rate"]

Type = Literal["auto", "user", "passt", "tap", "bridge", "macvtap", "ovs", "vhost-user", "stream", "none"]

LONGEST_LINK = 15
"""Bytes in the name of a network interface (source: linux/if.h, ``IFNAMSIZ`` of 16 with its closing zero)."""

FILTERED = ("tap", "bridge")
"""Backends whose traffic passes through the host's packet filter on an interface of the machine's own."""

TAPS = ("tap", "bridge", "ovs", "macvtap")
"""Backends with an interface on the host."""

MADE = ("auto", "user", "passt", "bridge")
"""Backends that can lead ports of the host into the guest."""

_USED_BY: dict[str, tuple[str, ...]] = {
    "network": ("bridge",),
    "bridge": ("bridge", "ovs", "vhost-user"),
    "interface": ("tap", "macvtap"),
    "ipv6": ("auto", "user", "passt", "bridge"),
    "peers": ("bridge",),
    "host": ("auto", "user", "passt", "bridge"),
    "isolated": ("auto", "user", "bridge"),
    "queues": (*TAPS, "vhost-user"),
    "rss": (*TAPS, "vhost-user"),
    "vhost": TAPS,
    "offload": ("auto", "user", "passt", "stream", *TAPS),
    "bond": ("ovs",),
    "socket": ("vhost-user", "stream"),
    "listen": ("vhost-user", "stream"),
}
"""The backends a setting does something for, where not all of them do."""

_ANYWAY = {"queues": 1, "vhost": "off"}
"""What is so with every other backend anyway."""

_OF_A_MADE_NETWORK = ("ipv6", "host", "isolated")
"""What a bridge of the host's decides by itself."""

_OF_VIRTIO = ("queues", "queue_size", "mtu", "packed", "rss")
"""What only a virtio card has."""

_GOES_WITH = {"gateway": "address", "dns": "address", "bond_mode": "bond", "lacp": "bond"}
"""What says more about another setting."""

_RATE = r"(?i:(\d+)\s*([kmg]?)bit)"
_FILTER = r"(?:(?P<protocol>tcp|udp|icmp|any)(?::(?P<ports>\d+(?:-\d+)?))?)(?:@(?P<peer>[0-9a-fA-F:.]+(?:/\d+)?))?"


@dataclass(frozen=True)
class NetSpec:
    """One network interface."""

    shorthand = "type"

    type: Type = option(
        "auto",
        "auto: passt where it is installed and no port leads in, else user; user: QEMU's own TCP/IP; "
        "passt: the host's sockets, no right needed; "
        "tap: an interface of the host; bridge: a network with other machines; macvtap: on a host interface; ovs: a port of "
        "an Open vSwitch bridge; vhost-user: another program's socket; stream: a cable to another machine; none",
    )
    model: Literal["auto", "virtio", "e1000e", "e1000", "rtl8139", "vmxnet3"] = option(
        "auto", "the card the guest sees; auto: virtio, and e1000e for a Windows without its drivers"
    )
    mac: Mac | None = option(None, "hardware address; derived from the machine's name when left out")
    forward: tuple[str, ...] = option(
        (), "ports of the host that lead into the guest: tcp:127.0.0.1:8080:80, 8080-8085:80-85, [::1]:8080:80"
    )
    network: str = option(
        "",
        "bridge: the network to be on; tinamou makes it with its first machine and removes it with its last",
        pattern=r"[a-z0-9][a-z0-9-]{0,30}",
        hint="lower-case letters, digits and dashes, at most 31",
    )
    bridge: str = option("", "bridge, ovs, vhost-user: a bridge of the host to join; it is never changed")
    interface: str = option("", "tap: an interface made by others; macvtap: the interface it sits on")
    subnet: str = option("", "bridge: IPv4 addresses of a network tinamou makes; chosen by its name when left out")
    address: str = option("", "a fixed address inside the guest, 10.0.0.5/24; by DHCP when left out")
    gateway: str = option("", "the gateway that goes with a fixed address")
    dns: tuple[str, ...] = option((), "name servers that go with a fixed address")
    ipv6: bool = option(True, "IPv6 beside IPv4")
    isolated: bool = option(False, "reach neither the host nor anything outside; on a network, only its other machines")
    peers: bool = option(True, "bridge: reach the other machines of the network")
    host: bool = option(False, "passt, bridge: reach services of the host itself")
    anti_spoof: bool = option(True, "bridge: drop packets with a MAC, IP or ARP address that is not this machine's")
    allow_out: tuple[str, ...] | None = option(
        None, "all the guest may send: tcp:443, udp:53@10.0.0.1, icmp, any@10.0.0.0/8"
    )
    allow_in: tuple[str, ...] | None = option(None, "all that may open connections to the guest, in the same notation")
    rate_out: str = option("", "what the guest may send, 100Mbit a second")
    rate_in: str = option("", "what the guest may receive, 100Mbit a second")
    queues: int = option(0, "pairs of queues; 0: one for each virtual CPU where the backend can", minimum=0, maximum=64)
    queue_size: int = option(0, "entries of the receive ring: 256, 512 or 1024; 0: 1024 with vhost, else 256", minimum=0)
    mtu: int = option(0, "largest packet in bytes, told to the guest; 0: the backend's", minimum=0, maximum=65520)
    offload: bool = option(True, "let large packets and checksums pass through unfinished, where the backend can")
    packed: Literal["auto", "on", "off"] = option("auto", "packed rings, one cache line less for each packet")
    rss: bool = option(False, "spread received flows over the queues by hash in QEMU")
    vhost: Literal["auto", "on", "off"] = option("auto", "tap: move packets in the host's kernel (/dev/vhost-net)")
    vlan: int = option(0, "ovs, vhost-user on a bridge: the port's VLAN", minimum=0, maximum=4094)
    trunk: tuple[int, ...] = option((), "ovs, vhost-user on a bridge: VLANs the port carries tagged")
    bond: str = option(
        "",
        "ovs: interfaces of one machine with the same word here are one bonded port",
        pattern=r"[a-z0-9][a-z0-9-]{0,14}",
        hint="lower-case letters, digits and dashes, at most 15",
    )
    bond_mode: Literal["active-backup", "balance-slb", "balance-tcp"] = option(
        "active-backup", "which member of a bond carries a packet; balance-tcp needs lacp"
    )
    lacp: Literal["off", "active", "passive"] = option("off", "a bond agrees with the guest's own (802.3ad)")
    port: int | None = option(
        None, "the hot-plug slot it sits in, from 1; it can be unplugged while the machine runs", minimum=1, maximum=32
    )
    socket: str = option("", "vhost-user, stream: path of the socket")
    listen: bool = option(False, "stream, vhost-user: this machine's end makes the socket, the other connects to it")

    @property
    def switched(self) -> bool:
        """Whether it is a port of Open vSwitch."""
        return self.type == "ovs" or (self.type == "vhost-user" and bool(self.bridge))

    def problems(self) -> list[Problem]:
        """All that cannot be, whatever the host."""
        return [*self._bad_notations(), *self._bad_names(), *self._idle(), *self._misplaced(), *self._bad_addresses()]

    def _idle(self) -> Iterator[Problem]:
        """Settings that would do nothing."""
        given = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}
        given.pop("type", None)
        for name, value in given.items():
            reason, fix = self._use_of(name, given)
            if reason:
                yield Problem(name, _shown(value), reason, fix)

    def _use_of(self, name: str, given: Mapping[str, object]) -> tuple[str, str]:
        """Why a setting would do nothing, and what to do; empty where it does something."""
        users = _USED_BY.get(name, (self.type,))
        if self.type == "none":
            return "type none is no interface", "leave it out, or choose another type"
        if self.type not in users and given[name] != _ANYWAY.get(name):
            return f"type {self.type} has no use for it", f"leave it out, or use type {' or '.join(users)}"
        if name in _OF_A_MADE_NETWORK and self.bridge:
            return f"it says what a network tinamou makes is like, and {self.bridge} is there already", "leave it out"
        if name in _OF_VIRTIO and self.model not in ("auto", "virtio"):
            return f"a card of model {self.model} has no such thing", "leave it out, or use model virtio"
        if (other := _GOES_WITH.get(name)) and other not in given:
            return f"it says more about {other}, which is not given", f"leave it out, or add {other} = …"
        return "", ""

    def _bad_notations(self) -> Iterator[Problem]:
        for index, text in enumerate(self.forward):
            try:
                forwards_of(text)
            except ValueError as error:
                fix = "write for example tcp:127.0.0.1:8080:80, 8080:80, or 8080-8085:80-85"
                yield Problem(f"forward[{index}]", text, str(error), fix)
        for field, rules in (("allow_out", self.allow_out), ("allow_in", self.allow_in)):
            for index, text in enumerate(rules or ()):
                try:
                    parse_filter(text)
                except ValueError as error:
                    yield Problem(f"{field}[{index}]", text, str(error), "write for example tcp:443, or any@10.0.0.0/8")
        for field, text in (("rate_out", self.rate_out), ("rate_in", self.rate_in)):
            if text and not re.fullmatch(_RATE, text):
                yield Problem(field, text, "not a rate", "write for example 100Mbit")
        for index, tag in enumerate(self.trunk):
            if not 0 < tag < 4095:
                yield Problem(f"trunk[{index}]", tag, "not a VLAN", "write 1 to 4094")
        if self.queue_size & (self.queue_size - 1) or 0 < self.queue_size < 64 or self.queue_size > 1024:
            yield Problem("queue_size", self.queue_size, "not a power of two from 64 to 1024", "write 256, 512 or 1024")

    def _bad_names(self) -> Iterator[Problem]:
        for field in ("bridge", "interface"):
            name = getattr(self, field)
            if len(name.encode()) > LONGEST_LINK or re.search(r"[/\s]", name) or name in (".", ".."):
                why = f"the name of an interface has at most {LONGEST_LINK} bytes, no slash and no blank"
                yield Problem(field, name, why, "see ip -br link")
        needed = {"macvtap": "interface", "ovs": "bridge", "stream": "socket"}.get(self.type)
        if needed and not getattr(self, needed):
            yield Problem(needed, None, f"{self.type} needs it", f"add {needed} = …")
        if self.type == "vhost-user" and bool(self.socket) == bool(self.bridge):
            why = "vhost-user needs the socket of a program, or a bridge of Open vSwitch, and not both"
            yield Problem("socket", self.socket or None, why, "add socket = … or bridge = …")
        if self.bridge and self.network:
            yield Problem("network", self.network, "given beside bridge, which is a network of the host's", "keep one")

    def _misplaced(self) -> Iterator[Problem]:
        """Settings the backend would have to ignore."""
        made = self.type in MADE and not self.bridge
        joined = "the guest's address is not known to tinamou there: reach the guest by its own"
        if self.forward and not made:
            yield Problem("forward", list(self.forward), f"type {self.type} cannot forward ports; {joined}", "leave it out")
        for field in ("allow_out", "allow_in", "rate_out", "rate_in"):
            limits = getattr(self, field) not in (None, "")
            if limits and self.type not in FILTERED and not (self.switched and field.startswith("rate")):
                why = f"type {self.type} has no interface of its own on the host that could be filtered"
                yield Problem(field, _shown(getattr(self, field)), why, "use type bridge or tap")
        for field, tags in (("vlan", self.vlan), ("trunk", list(self.trunk))):
            if tags and not self.switched:
                yield Problem(field, tags, "only Open vSwitch ports have one", "use type ovs")
        if self.bond_mode == "balance-tcp" and self.lacp == "off":
            yield Problem("bond_mode", self.bond_mode, "it works with lacp only", "set lacp = active, in the guest as well")
        if self.isolated and self.host:
            yield Problem("host", True, "isolated means that the host is not reached", "leave one of the two out")

    def _bad_addresses(self) -> Iterator[Problem]:
        for field in ("subnet", "address"):
            text = getattr(self, field)
            try:
                if text:
                    import ipaddress

                    (ipaddress.IPv4Network if field == "subnet" else ipaddress.ip_interface)(text)
            except ValueError as error:
                yield Problem(field, text, str(error), "write for example 10.77.0.0/24, or 10.77.0.5/24")
        if self.subnet and not (self.type == "bridge" and not self.bridge):
            yield Problem(
                "subnet", self.subnet, "only a network that tinamou makes takes one", "use type bridge, network = …"
            )


def _shown(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def parse_rate(text: str) -> int:
    """``"100Mbit"`` → 12500000 bytes a second; 0 for the empty string."""
    match = re.fullmatch(_RATE, text)
    return int(match[1]) * 1000 ** " kmg".index(match[2].lower() or " ") // 8 if match else 0


def parse_filter(text: str) -> tuple[str, str, str]:
    """``"tcp:443@10.0.0.0/8"`` → (protocol, ports, peer), empty where left out. Raises ValueError."""
    match = re.fullmatch(_FILTER, text)
    if not match or (match["ports"] and match["protocol"] in ("icmp", "any")):
        raise ValueError("not of the form tcp|udp|icmp|any[:port[-port]][@network]")
    if match["peer"]:
        import ipaddress

        ipaddress.ip_network(match["peer"])
    return match["protocol"], match["ports"] or "", match["peer"] or ""


def mac_of(spec: NetSpec, machine: str, number: int) -> str:
    """The interface's address: as given, or derived from machine name and number (52:54:00 is QEMU's own prefix)."""
    if spec.mac:
        return str(spec.mac)
    digest = sha256(f"{machine}/{number}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def interfaces(specs: Sequence[NetSpec]) -> dict[int, NetSpec]:
    """Those that are there at all, by number: one that was taken away leaves its number empty (``none``)."""
    return {number: spec for number, spec in enumerate(specs) if spec.type != "none"}
