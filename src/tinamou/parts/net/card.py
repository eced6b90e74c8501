"""The card the guest sees, with every property the backend's other end can use."""

from __future__ import annotations

from tinamou.blueprint import Element, Note, Value, Why
from tinamou.parts.net.wiring import Nic, Wired
from tinamou.parts.protocol import Resolved

__all__ = ["MODELS", "card", "notes"]

MODELS = {
    "virtio": ("virtio-net-pci", "virtio-net: no emulated hardware between guest and host"),
    "e1000e": (
        "e1000e",
        "an Intel 82574L, for guests without virtio drivers; every packet costs emulated register accesses",
    ),
    "e1000": ("e1000", "an Intel 82540EM, for old guests; every packet costs emulated register accesses"),
    "rtl8139": ("rtl8139", "a Realtek 8139, for very old guests; the slowest of all"),
    "vmxnet3": ("vmxnet3", "the card of VMware, for guests that come from there"),
}


_MENDED = "property:virtio-net-pci.guest_uso4"
"""What a QEMU has that does not die of vhost-user without KVM: 7.2 does, 10.0 does not."""


def card(nic: Nic, wired: Wired, resolved: Resolved) -> Element:
    """The device on its netdev."""
    driver, reason = MODELS[nic.spec.model]
    name = f"{nic.id}-dev"
    props: dict[str, Value] = {"driver": driver, "id": name, "netdev": nic.id, **resolved.slot(name)}
    props["mac"] = nic.mac
    props["romfile"] = ""
    reasons = [reason, "no boot ROM, which would only cost start-up time"]
    if nic.spec.model == "virtio":
        for key, (value, why) in _virtio(nic, wired, resolved).items():
            if resolved.facts.qemu.has(f"property:virtio-net-pci.{key}"):
                props[key] = value
                reasons.append(f"{key}: {why}")
    return Element("device", props, Why("spec net.model", "; ".join(reasons)))


def _virtio(nic: Nic, wired: Wired, resolved: Resolved) -> dict[str, tuple[Value, str]]:
    spec = nic.spec
    found: dict[str, tuple[Value, str]] = {}
    if wired.queues > 1:
        found["mq"] = (True, f"{wired.queues} queue pairs, so that virtual CPUs need not share one")
        found["vectors"] = (2 * wired.queues + 2, "an interrupt for each queue, configuration and control")
        if spec.rss:
            found["rss"] = (True, "QEMU spreads received flows over the queues")
    size = spec.queue_size or (1024 if wired.vhost else 0)
    if size:
        found["rx_queue_size"] = (size, "room for bursts of packets while the guest is busy")
    if size and wired.outside:
        found["tx_queue_size"] = (size, "likewise for what the guest sends")
    if wired.outside and resolved.accel.accel != "kvm" and not resolved.facts.qemu.has(_MENDED):
        found["vectors"] = (0, "one plain interrupt: without KVM this QEMU dies of vhost-user with message interrupts")
    if spec.lacp != "off":
        found["speed"] = (10000, "a guest agrees on a bond (802.3ad) only over cards of a known speed")
        found["duplex"] = ("full", "likewise")
    if spec.mtu or wired.mtu:
        found["host_mtu"] = (spec.mtu or wired.mtu, "the guest takes over the path's largest packet size")
    if spec.packed == "on" or (spec.packed == "auto" and wired.packed and wired.vhost):
        found["packed"] = (True, "packed rings: fewer cache lines for each packet")
    return found


def notes(nic: Nic) -> tuple[Note, ...]:
    """What a card of emulated hardware costs."""
    if nic.spec.model == "virtio":
        return ()
    text = (
        f"network interface {nic.number}: {nic.spec.model} is emulated hardware, slower than virtio (docs/guides/network.md)"
    )
    return (Note("info", text, Why("spec net.model", MODELS[nic.spec.model][1])),)
