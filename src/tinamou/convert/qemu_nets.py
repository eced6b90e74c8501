"""The options of a QEMU command line about the network: the four ways of writing it end in one list of interfaces.

Source: QEMU docs/system/invocation, section *Network options*.
"""

from __future__ import annotations

from typing import Any

from tinamou.convert import nets
from tinamou.convert.qemu_cpu import Handler
from tinamou.convert.qemu_line import Line, keys, pairs
from tinamou.convert.values import switch, whole

__all__ = ["CARDS", "HANDLERS", "device", "gather"]

CARDS = frozenset(
    [
        "virtio-net-pci",
        "virtio-net",
        "virtio-net-device",
        "virtio-net-pci-transitional",
        "virtio-net-pci-non-transitional",
        "e1000",
        "e1000e",
        "e1000-82540em",
        "e1000-82544gc",
        "e1000-82545em",
        "rtl8139",
        "vmxnet3",
        "ne2k_pci",
        "pcnet",
        "i82551",
        "i82557b",
        "i82559er",
        "igb",
        "tulip",
        "ne2k_isa",
        "usb-net",
    ]
)
_BACKENDS = ("user", "tap", "bridge", "passt", "vhost-user")
_OLD = (
    "-net ties cards together in a hub, where every packet is copied to all of them, and vhost cannot be used",
    "write -nic",
)
_PLACES = frozenset(
    [
        "vhostforce",
        "helper",
        "vhostfd",
        "vhostfds",
        "sndbuf",
        "poll-us",
        "mq",
        "vectors",
        "bus",
        "addr",
        "rx_queue_size",
        "tx_queue_size",
        "bootindex",
        "romfile",
        "vlan",
        "disable-legacy",
        "disable-modern",
        "packed",
        "guest_csum",
        "csum",
    ]
)
_HARMLESS = _PLACES | frozenset(
    [
        "type",
        "id",
        "ifname",
        "script",
        "downscript",
        "vhost",
        "vhostforce",
        "br",
        "helper",
        "queues",
        "hostfwd",
        "net",
        "host",
        "dhcpstart",
        "ipv4",
        "ipv6",
        "model",
        "mac",
        "macaddr",
        "netdev",
        "name",
        "restrict",
        "chardev",
        "vlan",
        "fd",
        "fds",
        "vhostfd",
        "vhostfds",
        "sndbuf",
        "poll-us",
        "mq",
        "vectors",
        "bus",
        "addr",
        "host_mtu",
        "rx_queue_size",
        "tx_queue_size",
        "bootindex",
        "romfile",
        "driver",
        "addr.type",
        "addr.path",
        "server",
        "path",
    ]
)


def _netdev(line: Line, option: str, text: str) -> None:
    line.define("netdev", option, text, _with_forwards(text))
    line.seen.add("net")


def _with_forwards(text: str) -> dict[str, str]:
    """The keys, with every forwarded port in one: they may be repeated."""
    found = keys(text, "type")
    ports = [value for key, value in pairs(text, "type") if key in ("hostfwd", "hostfwd.0.str")]
    return found | ({"hostfwd": " ".join(ports)} if ports else {})


def _nic(line: Line, option: str, text: str) -> None:
    line.seen.add("net")
    if text != "none":
        line.hubs.append(("nic", text, _with_forwards(text)))


def _net(line: Line, option: str, text: str) -> None:
    """``-net nic -net user``: a card, and what it is tied to, as two options."""
    line.seen.add("net")
    if text != "none":
        line.hubs.append(("net", text, _with_forwards(text)))


def _redir(line: Line, option: str, text: str) -> None:
    """``-redir tcp:2222::22``, as QEMU had it until 2.12."""
    parts = text.split(":")
    if len(parts) < 3:
        line.draft.lost("-redir", text, "it is not of the form tcp:HOSTPORT::GUESTPORT", "set forward")
        return
    line.hubs.append(("net", f"redir {text}", {"type": "user", "hostfwd": f"{parts[0]}::{parts[1]}-:{parts[-1]}"}))


def device(line: Line, driver: str, found: dict[str, str]) -> bool:
    """A network card; False for any other device."""
    if driver not in CARDS:
        return False
    line.hubs.append(("card", f"{driver},{','.join(f'{k}={v}' for k, v in found.items())}", {**found, "driver": driver}))
    line.seen.add("net")
    return True


def gather(line: Line) -> None:
    """All interfaces, in order, once every definition is known."""
    for kind, text, found in line.hubs:
        if kind == "card":
            definition = line.take("netdev", found.get("netdev", ""))
            if definition is None:
                reason = f"no -netdev has the id {found.get('netdev', '')}: QEMU refuses this line, or the card has no cable"
                line.draft.check("-device", text, reason, "the card is connected like any other")
            backend = definition.keys if definition else {"type": "auto"}
            _interface(line, "-netdev", definition.text if definition else "", backend, found, text)
        elif kind == "nic":
            _interface(line, "-nic", text, found, found)
    _hub(line)
    if "net" in line.seen and not line.draft.nets:
        line.draft.nets = []


def _hub(line: Line) -> None:
    ties = [(text, found) for kind, text, found in line.hubs if kind == "net"]
    if not ties:
        return
    line.draft.changed("-net", " -net ".join(text for text, _ in ties), *_OLD)
    cards = [(text, found) for text, found in ties if found.get("type") == "nic"]
    backends = [(text, found) for text, found in ties if found.get("type") != "nic"]
    if not cards:
        line.draft.check(
            "-net", backends[0][0], "there is no card on it: the guest had no network", "leave it out: net = []"
        )
    for number in range(max(len(backends), 1)):
        text, backend = backends[number] if number < len(backends) else ("", {"type": "none"})
        words, found = cards[number] if number < len(cards) else ("", {})
        if not backends:
            line.draft.check(
                "-net", words, "the card is connected to nothing: the guest had no network", "net = [] leaves it out"
            )
            backend = {"type": "auto"}
        _interface(line, "-net", text, backend, found, words)
    for text, _ in cards[max(len(backends), 1) :]:
        line.draft.lost("-net", text, "a second card on the same hub leads nowhere else", "add [[net]] if it is needed")


def _interface(line: Line, where: str, text: str, backend: dict[str, str], found: dict[str, str], words: str = "") -> None:
    kind = backend.get("type", "auto")
    net = line.draft.net()
    if kind not in (*_BACKENDS, "auto"):
        reason = f"{kind} connects virtual machines in a way tinamou has no field for; the card is on an ordinary network"
        line.draft.lost(where, text, reason, "see type = stream, bridge and ovs in docs/guides/network.md")
    else:
        _connect(line, net, where, text, kind, backend)
    model = found.get("driver") or found.get("model", "")
    if model or where != "-net":
        nets.card(line.draft, net, "-device" if "driver" in found else where, model)
    else:
        nets.card(line.draft, net, where, "e1000")
    if mac := found.get("mac") or found.get("macaddr"):
        nets.set_mac(line.draft, net, "mac", mac)
    if (mtu := whole(found.get("host_mtu", ""))) and "model" not in net:
        net["mtu"] = mtu
    shown = " ".join(dict.fromkeys(one for one in (text, words) if one))
    if shown:
        reason = "where on which bus a card sits, and how packets are moved, is tinamou's to choose"
        line.draft.done(where, shown, reason)
    if "fd" in backend or "fds" in backend:
        fix = "set interface = …, or bridge = …"
        if backend.get("id", "").startswith("hostnet"):
            fix = "libvirt's line does not say which network it is, its XML does: virsh dumpxml NAME, and convert that"
        line.draft.lost(where, text, "a descriptor the script had opened before is not there", fix)
    for key in sorted((backend.keys() | found.keys()) - _HARMLESS):
        value = backend.get(key, found.get(key, ""))
        line.draft.lost(
            where, f"{key}={value}", "an interface has no such setting here", "see docs/reference/spec.md, [[net]]"
        )


def _connect(line: Line, net: dict[str, Any], where: str, text: str, kind: str, backend: dict[str, str]) -> None:
    if kind == "user":
        _user(line, net, where, text, backend)
    elif kind == "tap":
        _tap(line, net, where, text, backend)
    elif kind == "bridge":
        net |= {"type": "bridge", "bridge": backend.get("br", "br0")}
        line.draft.done(where, text, "tinamou makes the port of the bridge itself; qemu-bridge-helper is not needed")
    elif kind == "passt":
        net["type"] = "passt"
    elif kind == "vhost-user":
        socket = line.take("chardev", backend.get("chardev", ""))
        net |= {"type": "vhost-user", "socket": socket.keys.get("path", "") if socket else ""}
        if socket and switch(socket.keys.get("server", "")):
            net["listen"] = True
    if queues := whole(backend.get("queues", "")):
        net["queues"] = queues


def _user(line: Line, net: dict[str, Any], where: str, text: str, backend: dict[str, str]) -> None:
    for port in backend.get("hostfwd", "").split():
        nets.forward(line.draft, net, f"{where} hostfwd=", port)
    if switch(backend.get("restrict", "")):
        net["isolated"] = True
    if backend.get("ipv6") == "off":
        net["ipv6"] = False
    if backend.get("ipv4") == "off":
        line.draft.lost(where, text, "a network without IPv4 is none of those here", "")
    if "net" in backend or "host" in backend or "dhcpstart" in backend:
        line.draft.lost(
            where, text, "the user network's addresses are QEMU's own: 10.0.2.0/24", "set address = … in the guest"
        )
    if "forward" not in net and "isolated" not in net:
        reason = "passt, where it is installed, moves packets through the host's own sockets and is faster than QEMU's"
        line.draft.changed(where, text or "user", reason, 'set type = "user" to keep QEMU\'s')


def _tap(line: Line, net: dict[str, Any], where: str, text: str, backend: dict[str, str]) -> None:
    net["type"] = "tap"
    if name := backend.get("ifname"):
        net["interface"] = name
        line.draft.check(
            where,
            f"ifname={name}",
            f"{name} must be there before the machine starts; it is not changed",
            f"ip tuntap add {name} mode tap; without interface = … tinamou makes one, and removes it",
        )
    if "br" in backend:
        net.clear()
        net |= {"type": "bridge", "bridge": backend["br"]}
    for key in ("script", "downscript"):
        if (script := backend.get(key, "no")) not in ("no", ""):
            line.draft.lost(
                where, f"{key}={script}", "no script of the host is run as root", "set bridge = … if it joined one"
            )
    if not backend.keys() & {"script", "br", "fd", "fds"}:
        reason = "QEMU would have run /etc/qemu-ifup as root to connect it; no script is run here"
        line.draft.check(where, text, reason, 'set type = "bridge" and bridge = "br0" if that is what it did')
    if switch(backend.get("vhost", "")):
        line.draft.done(where, "vhost=on", "used wherever the host has /dev/vhost-net; QEMU dies where it has not")


HANDLERS: dict[str, Handler] = {"netdev": _netdev, "nic": _nic, "net": _net, "redir": _redir}
"""Option → what it does to the draft."""
