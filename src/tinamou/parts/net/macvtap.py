"""Backend ``macvtap``: the guest sits directly on an interface of the host, with its own MAC address.

The host itself and the guest do not reach each other over it: that is how the kernel's macvlan works (source: ip-link(8)).
"""

from __future__ import annotations

from tinamou.blueprint import MakeMacvtap, Why
from tinamou.errors import Problem
from tinamou.parts.net import tap
from tinamou.parts.net.wiring import Nic, Wired

__all__ = ["check", "contribute"]


def contribute(nic: Nic) -> Wired:
    """A macvtap interface of our own on the one named."""
    why = Why("spec net.interface", f"the guest is on {nic.spec.interface} of the host, beside the host itself")
    return tap.wire(nic, nic.link, nic.queues, why, [MakeMacvtap(nic.link, nic.spec.interface, nic.mac, why, nic.spec.mtu)])


def check(nic: Nic) -> list[Problem]:
    """An interface that is not there."""
    name, links = nic.spec.interface, nic.facts.net.links
    if name in links:
        return []
    fix = f"interfaces here: {', '.join(sorted(links)) or 'none'}"
    return [Problem(f"net[{nic.number}].interface", name, "there is no such interface on this host", fix)]
