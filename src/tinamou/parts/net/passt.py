"""Backend ``passt``: a process beside QEMU that turns the guest's packets into the host's own sockets; needs no right.

Source: passt(1). Inside the guest it looks like ``user``: the same addresses and gateway; names are asked of this host's
name server.
"""

from __future__ import annotations

from tinamou.blueprint import Contribution, Element, HandOver, MakeDir, Note, StartHelper, Why
from tinamou.facts import identities
from tinamou.parts.net.forwards import Forward
from tinamou.parts.net.user import reserved
from tinamou.parts.net.wiring import Nic, Wired

__all__ = ["SOCKET", "contribute", "missing", "nameless"]

SOCKET = "passt.sock"
"""The name of its socket, in a folder called by the network interface."""


def missing(nic: Nic) -> str:
    """Why passt cannot be used on this host, empty when it can."""
    facts = nic.facts
    if not facts.host.has_tool("passt"):
        return "passt is not installed"
    if not facts.qemu.has("netdev:stream"):
        return f"{facts.qemu.binary} has no stream network backend (QEMU 7.2 has)"
    if not facts.net.default_route:
        return "the host has no default route, from which passt takes its addresses"
    if not facts.net.user_namespaces:
        return "no user namespace can be made here (a chroot or a container), and passt confines itself in one"
    return ""


def nameless(nic: Nic) -> str:
    """Why a guest behind passt could not look up names, empty when it can."""
    only = nic.facts.net.resolver
    return (
        f"this host's only name server is {only}, which a guest does not reach through passt" if only[:4] == "127." else ""
    )


def contribute(nic: Nic) -> Wired:
    """The process, its socket, and a netdev that is handed the connected socket."""
    place = nic.facts.place
    folder = place.file(nic.id)
    socket = f"{folder}/{SOCKET}"
    owner = None if place.uid is None else place.uid + identities.PASST
    why = Why("spec net", "the host's own sockets carry the guest's traffic: no right needed, faster than QEMU's own TCP/IP")
    element = Element(
        "netdev",
        {"type": "stream", "id": nic.id, "server": False, "addr": {"type": "unix", "path": socket}},
        why,
    )
    room = MakeDir(folder, Why("backend passt", "its socket; it has a user id of its own"), owner=owner)
    process = StartHelper("passt", argv(nic, socket), socket, why, owner)
    hand = HandOver(socket, "connect", Why("confinement", "QEMU is handed the connected socket"))
    unnamed = nameless(nic)
    said = (
        (Note("info", f"no names for network interface {nic.number}: {unnamed}", Why("host", unnamed)),) if unnamed else ()
    )
    return Wired(Contribution((element,), steps=(*reserved(nic), room, process, hand), notes=said), offload=False)


def argv(nic: Nic, socket: str) -> tuple[str, ...]:
    """passt's command line. ``--one-off``: it ends with its QEMU, however that ends.

    Guests are told of the host's own name server: ``--dns-forward`` beside ``--dns`` sends to 0.0.0.0 in passt of Debian 12.
    """
    spec = nic.spec
    words = ["passt", "--foreground", "--one-off", "--quiet", "--socket", socket]
    words += ["--address", f"{nic.inside}.15", "--netmask", "24", "--gateway", f"{nic.inside}.2"]
    words += ["--dns", nic.facts.net.resolver] if nic.facts.net.resolver and not nameless(nic) else []
    words += [] if spec.host else ["--no-map-gw"]
    words += [] if spec.ipv6 else ["--ipv4-only"]
    words += ["--mtu", str(spec.mtu)] if spec.mtu else []
    for forward in nic.forwards:
        words += _forward(forward)
    return tuple(words)


def _forward(forward: Forward) -> list[str]:
    protocol, address, host, guest = forward
    bind = "" if address == "0.0.0.0" else f"{address}/"  # noqa: S104
    return ["--tcp-ports" if protocol == "tcp" else "--udp-ports", f"{bind}{host}:{guest}"]
