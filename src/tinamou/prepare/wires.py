"""Interfaces of a machine on the host: taps, ports of bridges and switches, their packet filter; made and removed."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from tinamou.blueprint import (
    ClaimSocket,
    JoinBridge,
    JoinOvs,
    MakeMacvtap,
    MakeTap,
    ReachSocket,
    ReservePort,
    SetRules,
)
from tinamou.errors import PrepareError
from tinamou.prepare.journal import Entry, Journal
from tinamou.state import networks
from tinamou.system import iproute, nft, tap
from tinamou.system.exec import CommandError, TimeoutExpired

__all__ = [
    "claim_socket",
    "join_bridge",
    "join_ovs",
    "leave_ovs",
    "limit_ovs",
    "make_macvtap",
    "make_tap",
    "reach_socket",
    "remove_link",
    "remove_rules",
    "remove_socket",
    "reserve_port",
    "set_rules",
]


def reserve_port(step: ReservePort) -> None:
    """Bind the port for a moment. Raises PrepareError naming who has it."""
    kind = socket.SOCK_STREAM if step.protocol == "tcp" else socket.SOCK_DGRAM
    lowest = int(_read("/proc/sys/net/ipv4/ip_unprivileged_port_start") or "1024")
    if step.port < lowest:
        why = f"QEMU and passt run without rights, and ports below {lowest} are for root"
        fix = f"forward a port from {lowest} on, or: sysctl net.ipv4.ip_unprivileged_port_start={step.port}"
        raise PrepareError(f"port {step.port} cannot be forwarded", why=why, fix=fix)
    with socket.socket(socket.AF_INET6 if ":" in step.address else socket.AF_INET, kind) as probe:
        if step.protocol == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((step.address, step.port))
        except OSError as error:
            raise _not_free(step, error) from error


def _not_free(step: ReservePort, error: OSError) -> PrepareError:
    if error.errno == errno.EADDRINUSE:
        who = _holder(step.protocol, step.port)
        why = f"it is in use by {who}" if who else "it is in use by another program"
        return PrepareError(f"port {step.name} is not free", why=why, fix="forward another port, or end that program")
    if error.errno == errno.EADDRNOTAVAIL:
        return PrepareError(f"{step.address} is no address of this host", fix="use one that ip address shows, or 127.0.0.1")
    return PrepareError(f"port {step.name} cannot be used", why=error.strerror or str(error), fix="forward another port")


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _holder(protocol: str, port: int) -> str:
    """The process that listens on a port, ``nginx (process 812)``; empty when it cannot be seen."""
    rows = [line.split() for name in (protocol, f"{protocol}6") for line in _read(f"/proc/net/{name}").splitlines()[1:]]
    wanted = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] in ("0A", "07")}
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            found = wanted & {os.readlink(entry) for entry in folder.iterdir()}  # noqa: PTH115
        except OSError:
            continue
        if found:
            return f"{_read(f'{folder.parent}/comm')} (process {folder.parent.name})"
    return ""


def make_tap(step: MakeTap, journal: Journal) -> None:
    """A tap that lasts until its queues are opened, and is up."""
    journal.take("link", name=step.name)
    iproute.remove(step.name)
    try:
        tap.make(step.name, step.queues)
    except PermissionError as error:
        fix = "run as root, or use type passt or user"
        raise PrepareError("no permission to make a tap interface", why="it takes CAP_NET_ADMIN", fix=fix) from error
    mtu = f" mtu {step.mtu}" if step.mtu else ""
    iproute.batch(
        [
            f"link set dev {step.name} {iproute.alias(journal.path.parent)} addrgenmode none{mtu}",
            f"link set dev {step.name} up",
        ]
    )


def make_macvtap(step: MakeMacvtap, journal: Journal) -> None:
    """A macvtap that is up."""
    journal.take("link", name=step.name)
    iproute.remove(step.name)
    mtu = f" mtu {step.mtu}" if step.mtu else ""
    make = f"link add link {step.parent} name {step.name} address {step.mac}{mtu} type macvtap mode bridge"
    iproute.batch([make, f"link set dev {step.name} {iproute.alias(journal.path.parent)} up"])


def remove_link(entry: Entry) -> None:
    """Remove an interface made by us; often it went with QEMU already."""
    iproute.remove(str(entry["name"]))


def join_bridge(step: JoinBridge) -> None:
    """A port that ends with its interface. Frames of others are not shown to it, and it cannot pose as them.

    Its own address on the host's side begins with fe, so that the bridge never takes it for its own.
    """
    lines = [f"link set dev {step.name} address fe{step.mac[2:]}", f"link set dev {step.name} master {step.bridge}"]
    try:
        iproute.batch(lines)
        settings = f"link set dev {step.name} isolated {'on' if step.alone else 'off'}"
        settings += " learning off flood off" if step.quiet else ""
        iproute.bridge_batch([settings, *([f"fdb replace {step.mac} dev {step.name} master static"] if step.quiet else [])])
    except CommandError as error:
        why = error.stderr.strip().splitlines()[0] if error.stderr.strip() else str(error)
        fix = f"see ip -details link show {step.bridge}"
        raise PrepareError(f"{step.name} cannot become a port of {step.bridge}", why=why, fix=fix) from error


def join_ovs(step: JoinOvs, journal: Journal) -> None:
    """A port of an Open vSwitch bridge. Raises PrepareError when the switch does not take it."""
    from tinamou.prepare import ovs

    journal.take("ovs-port", lasting=True, name=step.name, bridge=step.bridge, bond=step.bond)
    try:
        ovs.delete_port(step.bridge, step.name, step.bond)
        ovs.add_port(step)
    except (CommandError, TimeoutExpired) as error:
        why = error.stderr.strip() if isinstance(error, CommandError) else "ovs-vswitchd did not take it within 5 s"
        fix = "see whether ovsdb-server and ovs-vswitchd run: ovs-vsctl show"
        raise PrepareError(f"Open vSwitch did not make {step.name} a port of {step.bridge}", why=why, fix=fix) from error


def limit_ovs(step: JoinOvs) -> None:
    """Set the port's rates anew. Raises PrepareError."""
    from tinamou.prepare import ovs

    try:
        ovs.set_rates(step)
    except (CommandError, TimeoutExpired) as error:
        why = error.stderr.strip() if isinstance(error, CommandError) else "ovs-vswitchd did not take it within 5 s"
        raise PrepareError(f"Open vSwitch did not limit {step.name}", why=why, fix="see ovs-vsctl show") from error


def leave_ovs(entry: Entry) -> None:
    """Delete the port. Raises CommandError while the switch's database does not answer."""
    from tinamou.prepare import ovs

    ovs.delete_port(str(entry["bridge"]), str(entry["name"]), str(entry.get("bond", "")))


def claim_socket(step: ClaimSocket, journal: Journal) -> None:
    """Write the socket down. Raises PrepareError where someone listens there already, or no socket can be."""
    path = Path(step.path)
    if not path.parent.is_dir():
        raise PrepareError(f"{path} cannot be made", why=f"there is no folder {path.parent}", fix="make it, or use another")
    if os.path.lexists(path) and (not path.is_socket() or _answers(step.path)):
        why = "another program listens on it" if path.is_socket() else "it exists, and is no socket"
        raise PrepareError(f"{path} is taken", why=why, fix="use another path; see ss -xlp")
    journal.take("socket", lasting=True, path=step.path)
    if step.target:
        path.unlink(missing_ok=True)
        path.symlink_to(step.target)


def reach_socket(step: ReachSocket) -> None:
    """Look, without connecting. Raises PrepareError where nothing is, or QEMU may not open it."""
    path = Path(step.path)
    if not path.is_socket():
        why = "it is no socket" if path.exists() else "there is nothing of that name"
        fix = "start what listens there first"
        raise PrepareError(f"{step.why.asked_by.removeprefix('spec ')}: {path} cannot be connected to", why=why, fix=fix)
    closed = step.owner is not None and not path.stat().st_mode & 0o002 and path.stat().st_uid != step.owner
    if closed:
        why = f"QEMU runs as user {step.owner}, and others may not write to it"
        raise PrepareError(f"{path} cannot be connected to", why=why, fix=f"chmod o+w {path}, or use listen = true")


def _answers(path: str) -> bool:
    from tinamou.system.sockets import NotListeningError, connect_unix

    try:
        connect_unix(path).close()
    except NotListeningError:
        return False
    return True


def remove_socket(entry: Entry) -> None:
    """Remove the socket, if it is there."""
    Path(str(entry["path"])).unlink(missing_ok=True)


def set_rules(step: SetRules, journal: Journal) -> None:
    """The interface's own chains, in place of any of the same name. Raises PrepareError with nft's words."""
    known = [entry for entry in journal.open_entries().values() if entry["kind"] == "rules" and entry["name"] == step.name]
    if not known:
        journal.take("rules", name=step.name)
    with networks.locked():
        try:
            nft.replace("netdev", step.name, step.rules)
        except CommandError as error:
            why = error.stderr.strip().splitlines()[0] if error.stderr.strip() else str(error)
            fix = "the kernel needs nf_tables with netdev ingress and egress (Linux 5.16 and later)"
            raise PrepareError(f"the packet filter of {step.name} cannot be set", why=why, fix=fix) from error


def remove_rules(entry: Entry) -> None:
    """Remove the interface's chains."""
    with networks.locked():
        nft.remove("netdev", str(entry["name"]))
