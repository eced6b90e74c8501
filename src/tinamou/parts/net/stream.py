"""Backend ``stream``: a cable between two machines, which is a Unix socket on the host; it leads nowhere else."""

from __future__ import annotations

from tinamou.blueprint import ClaimSocket, Contribution, Element, HandOver, ReachSocket, Step, Value, Why
from tinamou.parts.net.wiring import Nic, Wired

__all__ = ["contribute"]


def contribute(nic: Nic) -> Wired:
    """One end of the cable; the end with ``listen`` must be there first.

    It makes its socket in the machine's folder, and the path that was asked for leads there.
    """
    spec, place = nic.spec, nic.facts.place
    end = "waits for the other machine" if spec.listen else "connects to the machine that waits"
    why = Why("spec net.socket", f"a cable to another machine: this end {end} at {spec.socket}")
    path = place.file(f"run/{nic.id}.sock") if spec.listen else spec.socket
    address: dict[str, Value] = {"type": "unix", "path": path}
    element = Element("netdev", {"type": "stream", "id": nic.id, "server": spec.listen, "addr": address}, why)
    hand = HandOver(path, "connect", Why("confinement", "QEMU is handed the open socket"))
    reach = ReachSocket(path, why)
    steps: tuple[Step, ...] = (ClaimSocket(spec.socket, why, path),) if spec.listen else (reach, hand)
    return Wired(Contribution((element,), steps=steps), offload=False)
