"""Backend ``stream``: a cable between two machines, which is a Unix socket on the host; it leads nowhere else."""

from __future__ import annotations

from tinamou.blueprint import Contribution, Element, HandOver, Why
from tinamou.parts.net.wiring import Nic, Wired

__all__ = ["contribute"]


def contribute(nic: Nic) -> Wired:
    """One end of the cable; the end with ``listen`` must be there first."""
    spec = nic.spec
    end = "waits for the other machine" if spec.listen else "connects to the machine that waits"
    why = Why("spec net.socket", f"a cable to another machine: this end {end} at {spec.socket}")
    address = {"type": "unix", "path": spec.socket}
    element = Element("netdev", {"type": "stream", "id": nic.id, "server": spec.listen, "addr": dict(address)}, why)
    hand = HandOver(
        spec.socket, "listen" if spec.listen else "connect", Why("confinement", "QEMU is handed the open socket")
    )
    return Wired(Contribution((element,), steps=(hand,)), offload=False)
