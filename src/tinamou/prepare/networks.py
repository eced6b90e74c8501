"""Networks for machines: bridge, address translation, DHCP and names appear with the first member, go with the last."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from tinamou import late
from tinamou.blueprint import JoinNetwork
from tinamou.errors import PrepareError
from tinamou.facts.walls import letters
from tinamou.prepare import profiles
from tinamou.prepare.journal import Entry, Journal
from tinamou.prepare.logs import pipes_into
from tinamou.probe.selinux import probe_selinux
from tinamou.probe.walls import probe_walls
from tinamou.state import networks
from tinamou.state.networks import Member, Network
from tinamou.system import apparmor, iproute, jail, nft
from tinamou.system.closing import Closing
from tinamou.system.ended import status_of
from tinamou.system.exec import find_tool
from tinamou.system.known import find
from tinamou.system.logs import last_lines
from tinamou.system.own_programs import own_program
from tinamou.system.replaced import replace_text
from tinamou.system.spawn import Process, alive, end, found_started, send
from tinamou.system.syscalls import keyed
from tinamou.tuning.selinux import of_network
from tinamou.tuning.syscalls import HELPERS

__all__ = ["dnsmasq_words", "join", "leave", "serve_again", "server", "tidy"]


RESOLVERS = "/etc/resolv.conf"
_COPY = "resolv.conf"
"""The host's name servers as they were when somebody joined or left: where the host has a plain file of them.

Where that is a link into a folder of such files, dnsmasq sees the folder, and what changes in it.
"""
_NAMESPACES = ("mount", "pid", "ipc", "uts", "cgroup")
_FIRST_UID = 1_900_400_000
"""Above all that are leased to machines, and those of programs that are shut in."""
_BIND, _RAW = 1 << 10, 1 << 13
"""CAP_NET_BIND_SERVICE for its ports; CAP_NET_RAW for announcements of IPv6."""
_LIMITS = {
    resource.RLIMIT_AS: 256 << 20,
    resource.RLIMIT_NPROC: 32,
    resource.RLIMIT_NOFILE: 1024,
    resource.RLIMIT_FSIZE: 16 << 20,
}
"""It has at most 20 processes for those who ask by TCP; no other process has its user id."""


def join(step: JoinNetwork, journal: Journal) -> None:
    """Make the network if need be, and be known on it. Raises PrepareError; what was done is undone by `leave`."""
    journal.take("network", network=step.network, member=step.member)
    with networks.locked():
        network = Network(
            step.network, step.bridge, step.subnet, step.prefix6, step.isolated, step.host, onward6=step.onward6
        )
        there = networks.read(step.network)
        if there and any(one.up for one in networks.members(step.network)):
            _same(network, there)
            network = there
        if not iproute.exists(network.bridge):
            _build(network, step.mtu)
        member = Member(
            step.member, step.address, step.machine, step.mac, step.address6 if network.prefix6 else "", True, step.forwards
        )
        networks.put(step.network, member)
        _serve(network)
        _forward(network, member)


def _same(request: Network, there: Network) -> None:
    for field in ("isolated", "host", "prefix6"):
        if getattr(request, field) != getattr(there, field):
            name = "ipv6" if field == "prefix6" else field
            was = bool(getattr(there, field))
            raise PrepareError(
                f"network {request.name} exists with {name} = {str(was).lower()}",
                why="its machines share one network, which cannot be both",
                fix=f"set net.{name} = {str(was).lower()}, or name another network",
            )


def _gateway(network: Network) -> str:
    return str(next(ipaddress.IPv4Network(network.subnet).hosts()))


def _build(network: Network, mtu: int) -> None:
    """Bridge, the host's addresses on it, filter and translation."""
    _refuse_taken(network)
    networks.folder(network.name).mkdir(parents=True, exist_ok=True)
    networks.write(network)
    bridge, length = network.bridge, ipaddress.IPv4Network(network.subnet).prefixlen
    lines = [f"link add name {bridge} type bridge stp_state 0 mcast_snooping 0 forward_delay 0"]
    alias = iproute.alias(networks.folder(network.name))
    lines.append(f"link set dev {bridge} {alias}" + (f" mtu {mtu}" if mtu else ""))
    lines.append(f"address add {_gateway(network)}/{length} dev {bridge}")
    if network.prefix6:
        lines.append(f"address add {ipaddress.IPv6Network(network.prefix6)[1]}/64 dev {bridge} nodad")
    else:
        lines.append(f"link set dev {bridge} addrgenmode none")
    iproute.batch(lines)
    _quiet(bridge)
    iproute.batch([f"link set dev {bridge} up"])
    nft.remove("inet", bridge)
    nft.add("inet", "\n".join(rules(network)) + "\n")


def _quiet(bridge: str) -> None:
    """The host takes no address from announcements there; its own 127.0.0.1 may be translated towards the guests."""
    Path(f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet").write_text("1")
    announcements = Path(f"/proc/sys/net/ipv6/conf/{bridge}/accept_ra")
    if announcements.exists():
        announcements.write_text("0")


def _refuse_taken(network: Network) -> None:
    wanted = ipaddress.IPv4Network(network.subnet)
    for route in iproute.routes():
        where = str(route.get("dst", "default"))
        if where != "default" and wanted.overlaps(ipaddress.IPv4Network(where, strict=False)):
            raise PrepareError(
                f"network {network.name} would take {network.subnet}",
                why=f"{where} is reached over {route.get('dev')} already",
                fix="set net.subnet to addresses that are free, for example 10.201.7.0/24",
            )


def rules(network: Network) -> list[str]:
    """The chains of one network in table ``inet tinamou``: pure."""
    bridge, lines = network.bridge, []

    def chain(name: str, kind: str, body: Iterable[str]) -> None:
        lines.append(f"add chain inet tinamou {name}-{bridge} {{ type {kind}; policy accept; }}")
        lines.extend(f"add rule inet tinamou {name}-{bridge} {rule}" for rule in body)

    within, back = f"iifname {bridge} oifname {bridge} accept", f"oifname {bridge} ct state established,related accept"
    led = f"oifname {bridge} ct status dnat accept"
    if network.isolated:
        forward = [within, f"iifname {bridge} drop", f"oifname {bridge} drop"]
    else:
        forward = [within, f"iifname {bridge} accept", back, led, f"oifname {bridge} drop"]
    chain("fwd", "filter hook forward priority filter", forward)
    local = [
        f"iifname {bridge} ct state established,related accept",
        f"iifname {bridge} udp dport {{ 53, 67, 547 }} accept",
        f"iifname {bridge} tcp dport 53 accept",
        f"iifname {bridge} icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }} accept",
    ]
    if not network.isolated:
        local.append(f"iifname {bridge} meta l4proto {{ icmp, ipv6-icmp }} accept")
    chain("local", "filter hook input priority filter", [*local, *([] if network.host else [f"iifname {bridge} drop"])])
    nat = [f"oifname {bridge} ip saddr 127.0.0.0/8 masquerade"]
    if not network.isolated:
        nat.append(f"ip saddr {network.subnet} oifname != {bridge} masquerade")
    if network.onward6:
        nat.append(f"ip6 saddr {network.prefix6} oifname != {bridge} masquerade")
    chain("nat", "nat hook postrouting priority srcnat", nat)
    return lines


def dnsmasq_words(network: Network) -> list[str]:
    """DHCP, router announcements and names of one network."""
    place, gateway = networks.folder(network.name), _gateway(network)
    words = [find_tool("dnsmasq") or "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="]
    words += ["--log-facility=-", "--user=", f"--interface={network.bridge}", "--except-interface=lo"]
    words += [
        "--bind-interfaces",
        "--no-hosts",
        "--dhcp-authoritative",
        "--dhcp-broadcast",
        "--no-ping",
        "--domain-needed",
        "--bogus-priv",
    ]
    words += [f"--addn-hosts={place}/hosts", f"--dhcp-hostsfile={place}/dhcp", f"--dhcp-leasefile={place}/leases"]
    words += [f"--dhcp-range={ipaddress.IPv4Network(network.subnet)[0]},static,infinite"]
    words += [f"--dhcp-option=option:dns-server,{gateway}"]
    if network.isolated:
        words += ["--no-resolv", "--dhcp-option=3"]
    elif (names := Path(RESOLVERS).resolve()).parent == Path(RESOLVERS).parent:
        words += [f"--resolv-file={place}/{_COPY}", "--no-poll"]
    else:
        words += [f"--resolv-file={names}"]
    if network.prefix6:
        words += ["--enable-ra", f"--dhcp-range={ipaddress.IPv6Network(network.prefix6)[0]},ra-only,infinite"]
        words += [] if network.onward6 else [f"--ra-param={network.bridge},0,0"]
    return words


def _serve(network: Network) -> None:
    """Tell dnsmasq who is there; start it when it does not run. Raises PrepareError with its last words."""
    place = networks.folder(network.name)
    there = [one for one in networks.members(network.name) if one.up]
    gateway = f"{_gateway(network)} {network.name}-gateway"
    names = [gateway, *(f"{address} {one.machine}" for one in there for address in (one.address, one.address6) if address)]
    place.chmod(0o711)
    place.parent.chmod(0o711)
    (place / "hosts").write_text("\n".join(names) + "\n")
    (place / "dhcp").write_text("".join(f"{one.mac},{one.address},{one.machine},infinite\n" for one in there))
    with contextlib.suppress(FileNotFoundError):
        (place / _COPY).write_bytes(Path(RESOLVERS).read_bytes())
    words = dnsmasq_words(network)
    log = place / "dnsmasq.log"
    process = found_started(lambda: server(network), log)
    if process and send(process, signal.SIGHUP):
        return
    log.unlink(missing_ok=True)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "LD_PRELOAD": own_program("claims")}
    with pipes_into(log) as [said]:
        process = jail.spawn(_around(network, words[0]), words, log=said, environment=environment)
    replace_text(place / _PROCESS, json.dumps([process.pid, process.started, _uid(network)]))
    _wait_served(process, log)


def _around(network: Network, program: str) -> jail.Jail:
    """dnsmasq sees three files, those of name servers, and the host's network; it writes to one of them.

    It has no right to change that network, which it asks for and does not need (images/programs/claims.c).
    """
    place, uid = networks.folder(network.name), _uid(network)
    with Closing(os.open(place / "leases", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)) as leases:
        os.fchown(leases, uid, uid)
    names = Path(RESOLVERS).resolve()
    seen = [
        Path(own_program("claims")),
        place / "hosts",
        place / "dhcp",
        place / _COPY if names.parent == Path(RESOLVERS).parent else names.parent,
    ]
    return jail.Jail(
        uid,
        namespaces=letters(kind for kind in _NAMESPACES if kind not in probe_walls().refused),
        reads=(*jail.SYSTEM, *jail.tree_of(program), *(str(path) for path in seen if path.exists())),
        writes=(str(place / "leases"),),
        devices=jail.nodes(),
        limits=_LIMITS,
        keeps=_BIND | (_RAW if network.prefix6 else 0),
        profile=profiles.serving(_profile(network), place),
        label=_label(network),
        call_filter=keyed(HELPERS["dnsmasq"], program),
    )


def _uid(network: Network) -> int:
    """Whom its dnsmasq runs as: nobody else of this host does, as no other link has the number of its bridge."""
    return _FIRST_UID + socket.if_nametoindex(network.bridge)


def _label(network: Network) -> str:
    """Its SELinux context, empty where none can be entered."""
    whose, refused = probe_selinux()
    return of_network(whose, network.bridge) if whose and not refused else ""


def _profile(network: Network) -> str:
    return f"tinamou-net-{network.bridge}"


def serve_again(name: str) -> None:
    """Start the network's dnsmasq if it died. Raises PrepareError."""
    with networks.locked():
        network = networks.read(name)
        if network is not None:
            _serve(network)


_PROCESS = "dnsmasq.json"
"""Number, start time and user of a network's dnsmasq."""


def server(network: Network) -> Process | None:
    """The network's dnsmasq, None where it does not run."""
    known, users = None, {os.geteuid()}
    with contextlib.suppress(OSError):  # a bridge that is gone
        users.add(_uid(network))
    with contextlib.suppress(OSError, ValueError, TypeError):
        pid, started, uid = map(int, json.loads((networks.folder(network.name) / _PROCESS).read_text()))
        known = Process(pid, started)
        users.add(uid)
    return find(dnsmasq_words(network), users, known)


def _wait_served(process: Process, log: Path) -> None:
    deadline = time.monotonic() + 5.0
    while "started" not in last_lines(log) or not alive(process):
        if not alive(process) or time.monotonic() > deadline:
            why = " ".join(filter(None, (status_of(process.pid), last_lines(log).strip()[-500:])))
            fix = "see whether another DHCP server is bound to all interfaces (ss -lunp), or set net.subnet"
            raise PrepareError("the network's dnsmasq did not start", why=why, fix=fix)
        time.sleep(0.005)


def _forward(network: Network, member: Member) -> None:
    """Ports of the host lead to the member: for connections from outside, and from the host itself."""
    if not member.forwards:
        return
    owner = f"{network.bridge}-{member.name}"
    nft.remove("inet", owner)
    lines = []
    for name, hook in (("dnat", "prerouting"), ("dnatout", "output")):
        chain = f"{name}-{owner}"
        lines.append(f"add chain inet tinamou {chain} {{ type nat hook {hook} priority -100; policy accept; }}")
        for protocol, address, host, guest in member.forwards:
            target = "fib daddr type local" if address == "0.0.0.0" else f"ip daddr {address}"  # noqa: S104
            lines.append(
                f"add rule inet tinamou {chain} {target} {protocol} dport {host} dnat ip to {member.address}:{guest}"
            )
    nft.add("inet", "\n".join(lines) + "\n")


def leave(entry: Entry) -> None:
    """Unplug one member; the network goes with the last one. Repeating it does no harm."""
    name, member = str(entry["network"]), str(entry["member"])
    with networks.locked():
        for one in networks.members(name):
            if one.name == member and one.up:
                networks.put(name, late.replace(one, up=False))
        network = networks.read(name)
        if network is not None:
            nft.remove("inet", f"{network.bridge}-{member}")
            _settle(network)


def _settle(network: Network) -> None:
    """Take the network down when nobody is on it, else tell dnsmasq who is left."""
    if any(one.up for one in networks.members(network.name)):
        if iproute.exists(network.bridge):
            _serve(network)
        return
    log = networks.folder(network.name) / "dnsmasq.log"
    process = found_started(lambda: server(network), log)
    if process:
        end(process, grace=1.0)
    apparmor.remove(_profile(network))
    nft.remove("inet", network.bridge)
    iproute.remove(network.bridge)
    networks.forget(network.name)


def tidy() -> None:
    """Take down networks whose last machine is gone without having left (its folder was removed by hand)."""
    for name in networks.names():
        with networks.locked():
            network = networks.read(name)
            if network is not None:
                if not any(one.up for one in networks.members(name)):
                    _settle(network)
            elif not networks.members(name):
                networks.forget(name)
