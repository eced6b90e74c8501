"""Backend ``user``: QEMU's own TCP/IP stack (libslirp); needs no right and no program, and is the slowest."""

from __future__ import annotations

from tinamou.blueprint import Contribution, Element, ReservePort, Value, Why
from tinamou.parts.net.wiring import Nic, Wired

__all__ = ["contribute", "reserved"]


def contribute(nic: Nic) -> Wired:
    """One netdev; with ``isolated`` it answers DHCP and nothing else."""
    why = Why("spec net", "outgoing traffic without any right on the host; reached from outside only by the forwards")
    props: dict[str, Value] = {"type": "user", "id": nic.id}
    if nic.number:
        props["net"] = f"{nic.inside}.0/24"
    if not nic.spec.ipv6:
        props["ipv6"] = False
    if nic.spec.isolated:
        why = Why("spec net.isolated", "QEMU's own TCP/IP, which passes nothing on to the host or beyond")
        props["restrict"] = True
    if nic.forwards:
        rules = [f"{protocol}:{address}:{host}-:{guest}" for protocol, address, host, guest in nic.forwards]
        props["hostfwd"] = [{"str": rule} for rule in rules]
    return Wired(Contribution((Element("netdev", props, why),), steps=reserved(nic)), offload=False)


def reserved(nic: Nic) -> tuple[ReservePort, ...]:
    """A look at every port of the host that is to lead into the guest."""
    why = Why("spec net.forward", "a port that is taken is told before anything else is done")
    return tuple(ReservePort(protocol, address, host, why) for protocol, address, host, _ in nic.forwards)
