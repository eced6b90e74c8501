"""Which interfaces are on a network that other machines may be on too, and what that network is called."""

from __future__ import annotations

from tinamou.parts.net.network import name_of
from tinamou.parts.net.spec import NetSpec

__all__ = ["shared"]


def shared(spec: NetSpec) -> str:
    """The network it shares, in words that are the same for all that are on it; empty for one of its own (user, passt).

    What the taps tinamou makes lead to is nobody's but the host's to decide: to one network, as far as is known here.
    """
    vlan = f", VLAN {spec.vlan}" if spec.vlan else ""
    match spec.type:
        case "bridge" if not spec.bridge:
            return f"network {name_of(spec)}"
        case "bridge" | "ovs" | "vhost-user" if spec.bridge:
            return f"bridge {spec.bridge}{vlan}"
        case "tap" | "macvtap":
            return f"interface {spec.interface}" if spec.interface else "the host's taps"
        case "vhost-user" | "stream":
            return f"socket {spec.socket}"
    return ""
