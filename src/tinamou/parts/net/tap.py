"""Backend ``tap``: an interface of the host, made for this machine or handed in; QEMU gets its open queues."""

from __future__ import annotations

from tinamou.blueprint import Contribution, Element, MakeTap, Note, OpenTap, SetRules, Step, Value, Why
from tinamou.parts.net import firewall
from tinamou.parts.net.wiring import Nic, Wired

__all__ = ["contribute", "no_vhost", "wire"]

VHOST = "/dev/vhost-net"


def contribute(nic: Nic) -> Wired:
    """A tap made by us, up and without an address of the host; or one that exists, which is only opened."""
    spec = nic.spec
    name = spec.interface or nic.link
    found = nic.facts.net.links.get(spec.interface)
    queues = nic.queues if found is None or found.queues > 1 else 1
    why = Why(
        "spec net.interface" if spec.interface else "spec net", f"the guest's packets come and go on {name} of the host"
    )
    steps: list[Step] = [] if spec.interface else [MakeTap(name, queues, why, spec.mtu)]
    rules = firewall.rules(nic, name, known=False)
    if rules:
        steps.append(SetRules(name, rules, Why("spec net", "only what the machine may send and receive passes")))
    return wire(nic, name, queues, why, steps)


def no_vhost(nic: Nic) -> str:
    """Why packets are not moved by the host's kernel, empty when they are."""
    if nic.spec.model != "virtio":
        return f"{nic.spec.model} is not a virtio card"
    if nic.spec.vhost == "off":
        return "net.vhost is off"
    if VHOST not in nic.facts.host.devices:
        return f"there is no {VHOST} (modprobe vhost_net, where the kernel has it)"
    return ""


def wire(nic: Nic, name: str, queues: int, why: Why, steps: list[Step], *, offload: bool = True) -> Wired:
    """A netdev on the open queues of an interface of the host, after the steps that make it ready."""
    reason = no_vhost(nic)
    vhost = not reason
    offload = offload and nic.spec.offload
    props: dict[str, Value] = {"type": "tap", "id": nic.id, "ifname": name, "script": "no", "downscript": "no"}
    if queues > 1:
        props["queues"] = queues
    if vhost:
        props["vhost"] = True
    notes = []
    if (reason and nic.spec.vhost == "on") or (reason and nic.spec.model == "virtio" and nic.spec.vhost == "auto"):
        text = f"network interface {nic.number}: packets go through QEMU, not vhost: {reason}"
        notes.append(Note("info", text, Why("backend tap", reason)))
    ours = any(isinstance(step, MakeTap) for step in steps)
    hand = OpenTap(name, queues, Why("confinement", "QEMU is handed the open queues"), vhost, offload, ours)
    part = Contribution((Element("netdev", props, why),), steps=(*steps, hand), notes=tuple(notes))
    return Wired(part, queues, offload, vhost, packed=not vhost)
