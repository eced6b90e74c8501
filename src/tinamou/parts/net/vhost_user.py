"""Backend ``vhost-user``: another program (OVS with DPDK, passt, VPP) takes packets out of the guest's memory itself."""

from __future__ import annotations

from tinamou.blueprint import Contribution, Element, HandOver, Value, Why
from tinamou.parts.net.wiring import Nic, Wired

__all__ = ["contribute"]


def contribute(nic: Nic) -> Wired:
    """A connection to the program's socket, and a netdev on it."""
    path = nic.spec.socket
    why = Why("spec net.socket", f"the program behind {path} reads and writes the guest's packets in its memory")
    channel: dict[str, Value] = {"id": f"{nic.id}-chr", "path": path}
    props: dict[str, Value] = {"type": "vhost-user", "id": nic.id, "chardev": f"{nic.id}-chr"}
    if nic.queues > 1:
        props["queues"] = nic.queues
    hand = HandOver(path, "connect", Why("confinement", "QEMU is handed the connected socket"))
    elements = (Element("chardev", channel, why, "socket"), Element("netdev", props, why))
    return Wired(Contribution(elements, steps=(hand,)), nic.queues, vhost=True, packed=False)
