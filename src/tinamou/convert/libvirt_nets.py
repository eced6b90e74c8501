"""The interfaces of a libvirt domain.

Source: libvirt's documentation, *Domain XML format*, *Network interfaces*.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tinamou.convert import foreign, nets
from tinamou.convert.result import Draft
from tinamou.convert.values import machine_name, switch, whole
from tinamou.convert.xml import Element, attribute, shown_of

__all__ = ["interface", "pci_address"]

_MOST_PORTS = 256
"""Of a range of forwarded ports: each is one of its own here."""
_TABLES = ("bandwidth", "filterref", "tune", "coalesce", "teaming", "guest", "rom", "driver/host", "driver/guest")


def pci_address(node: Element | None) -> str:
    """``0000:0b:00.0`` of an <address>; empty where there is none."""
    if node is None:
        return ""
    numbers = [whole(node.get(key) or "0") or 0 for key in ("domain", "bus", "slot", "function")]
    return "{:04x}:{:02x}:{:02x}.{:x}".format(*numbers)


def interface(draft: Draft, node: Element, *, windows: bool) -> None:
    """One interface; none where it was no card, or had no cable."""
    kind, source, link = node.get("type"), node.find("source"), node.find("link")
    if link is not None and link.get("state") != "down":
        draft.done(f"interface {kind}", f"link {link.shown()}", "it has a cable")
    where = f"interface {kind}"
    if kind == "hostdev" and source is not None and (address := pci_address(source.find("address"))):
        shown = node.shown()
        foreign.passed_through(draft, where, f"pci {address}", address)
        draft.check(where, shown, "the card's own address and VLAN are not set", "ip link set … vf …, before it starts")
        return
    if link is not None and link.get("state") == "down":
        draft.lost(
            where, f"link state=down, {node.shown()}", "an interface without a cable is left out", "tinamou net add NAME"
        )
        return
    if kind == "vdpa":
        draft.lost(where, node.shown(), "a vDPA device is not given to a machine", 'set pci = ["ADDRESS"]')
        return
    net = draft.net()
    _connect(draft, net, node, where, kind, source)
    _card(draft, net, node, where, windows=windows)
    for tag in _TABLES:
        for one in node.findall(tag):
            fix = "set rate_in, rate_out, allow_in or allow_out"
            draft.lost(where, f"{tag} {one.shown()}".strip(), "it is written another way here", fix)
    for forward in node.findall("portForward"):
        _forward(draft, net, where, forward)
    for one in node.findall("backend"):
        if one.get("type") == "passt":
            net["type"] = "passt"


def _connect(draft: Draft, net: dict[str, Any], node: Element, where: str, kind: str, source: Element | None) -> None:
    given = partial(attribute, source, "")
    if kind == "bridge":
        net |= {"type": "bridge", "bridge": given("bridge")}
        if attribute(node, "virtualport", "type") == "openvswitch":
            net["type"] = "ovs"
    elif kind == "network":
        _network(draft, net, where, given("network"))
    elif kind == "direct":
        net |= {"type": "macvtap", "interface": given("dev")}
        if (mode := given("mode") or "vepa") != "bridge":
            draft.lost(where, f"mode={mode}", "a macvtap interface here is one of mode bridge", "see docs/guides/network.md")
    elif kind == "ethernet":
        net["type"] = "tap"
        if name := attribute(node, "target", "dev"):
            net["interface"] = name
        for script in node.findall("script"):
            draft.lost(where, f"script={script.get('path')}", "no script of the host is run as root", "set bridge = …")
    elif kind == "vhostuser":
        net.update(type="vhost-user", socket=given("path"), listen=given("mode") == "server")
    elif kind not in ("user", ""):
        shown = shown_of(source)
        draft.lost(where, shown, "no network of that kind is here; the card is on an ordinary one", "set type = …")


def _network(draft: Draft, net: dict[str, Any], where: str, name: str) -> None:
    if name in ("default", ""):
        net |= {"type": "bridge", "network": "default"}
        reason = (
            "a network of tinamou's with addresses, names and a way out, like libvirt's; other machines of tinamou are on it"
        )
        fix = 'leave type and network out to need no root; bridge = "virbr0" joins libvirt\'s own'
        draft.changed(where, name, reason, fix)
        return
    net |= {"type": "bridge", "network": machine_name(name)[:31] or "default"}
    fix = f"virsh net-info {name} names its bridge: set bridge = … to be on it with machines of libvirt"
    draft.check(where, name, f"what libvirt's network {name} is, only libvirt knows; here it is one of tinamou's", fix)


def _card(draft: Draft, net: dict[str, Any], node: Element, where: str, *, windows: bool) -> None:
    model, mac, driver = node.find("model"), node.find("mac"), node.find("driver")
    if model is None:
        draft.changed(
            where, "", "libvirt's card without a model is an rtl8139 or what its board has; here virtio", "set model = …"
        )
    else:
        kind = model.get("type")
        draft.done(where, f"model={kind or 'none is said'}", "the card the guest sees; virtio is the fastest")
        nets.card(draft, net, where, kind, windows=windows)
    if mac is not None:
        nets.set_mac(draft, net, where, mac.get("address"))
    if driver is not None:
        if queues := whole(driver.get("queues")):
            net["queues"] = queues
        _driver(net, driver)
    for vlan in node.findall("vlan"):
        _vlan(draft, net, where, vlan)
    if number := whole(attribute(node, "mtu", "size")):
        net["mtu"] = number
    if attribute(node, "port", "isolated") == "yes":
        net["peers"] = False


def _driver(net: dict[str, Any], driver: Element) -> None:
    if (packed := driver.get("packed")) in ("on", "off"):
        net["packed"] = packed
    if driver.get("rss") == "on":
        net["rss"] = True


def _vlan(draft: Draft, net: dict[str, Any], where: str, vlan: Element) -> None:
    tags = vlan.findall("tag")
    numbers = [number for one in tags if (number := whole(one.get("id")))]
    if switch(vlan.get("trunk")) or len(tags) > 1:
        native = next((whole(one.get("id")) for one in tags if one.get("nativeMode")), None)
        net["trunk"] = [number for number in numbers if number != native]
        if native:
            net["vlan"] = native
        draft.changed(where, f"vlan {vlan.shown()}", "the port carries these VLANs tagged", "see trunk in [[net]]")
    elif numbers:
        net["vlan"] = numbers[0]


def _forward(draft: Draft, net: dict[str, Any], where: str, forward: Element) -> None:
    protocol, address, device = forward.get("proto") or "tcp", forward.get("address"), forward.get("dev")
    if device:
        draft.lost(where, f"portForward dev={device}", "a port is on an address, not on an interface", "set forward = …")
    ranges = forward.findall("range")
    excluded = {port for one in ranges if switch(one.get("exclude")) for port in _span(one)}
    for one in ranges:
        ports = _span(one)
        if one.get("exclude") and switch(one.get("exclude")):
            draft.done(where, f"portForward exclude {one.shown()}", "these ports are not forwarded")
        elif not ports or len(ports) > _MOST_PORTS:
            reason = f"each port is forwarded on its own here, and at most {_MOST_PORTS} of a range"
            draft.lost(where, f"portForward {one.shown()}", reason, "set forward = …")
        else:
            shift = (whole(one.get("to")) or ports[0]) - ports[0]
            for port in ports:
                if port not in excluded:
                    nets.forward(draft, net, where, f"{protocol}:{_host(address)}:{port}-:{port + shift}")
    if not ranges:
        draft.lost(where, f"portForward {forward.shown()}", "all ports at once are not forwarded", "set forward = …")


def _span(node: Element) -> range:
    start = whole(node.get("start")) or 0
    end = whole(node.get("end") or str(start)) or 0
    return range(start, end + 1) if 0 < start <= end < 1 << 16 else range(0)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
