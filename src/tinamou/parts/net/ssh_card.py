"""The card that leads to the guest's ssh server, and nowhere else, where none of the machine's own cards does.

It is on QEMU's own TCP/IP, which passes nothing but the one port: the guest can neither reach the host nor anything beyond.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinamou.blueprint import Contribution, Element, ReservePort, Value, Why
from tinamou.facts import Facts
from tinamou.parts.net.card import MODELS
from tinamou.parts.net.spec import NetSpec, interfaces, mac_of
from tinamou.parts.protocol import Resolved

__all__ = ["DEVICE", "contribute", "leading", "mac", "wanted"]

DEVICE = "ssh-dev"
_NUMBER = 255
"""As which the card is counted for its addresses: no other can have this number."""


def leading(specs: Sequence[NetSpec]) -> int | None:
    """The number of the machine's card that can lead to the ssh server: the first, unless it was plugged in later."""
    for number, spec in interfaces(specs).items():
        made = spec.type in ("auto", "user", "passt") or (spec.type == "bridge" and not spec.bridge)
        return number if made and spec.port is None else None
    return None


def wanted(specs: Sequence[NetSpec], facts: Facts) -> bool:
    """Whether the guest may run an ssh server, and nothing else leads to it."""
    return facts.image.may_have_sshd and bool(facts.place.ssh_port) and leading(specs) is None


def mac(facts: Facts) -> str:
    """The card's hardware address."""
    return mac_of(NetSpec(), facts.place.known_as, _NUMBER)


def contribute(resolved: Resolved) -> Contribution:
    """The card, of the model the guest's first one is, on its backend."""
    specs, facts = resolved.spec.net, resolved.facts
    if not wanted(specs, facts):
        return Contribution()
    port = facts.place.ssh_port
    why = Why("image", "no other card leads to the guest's ssh server: this one does, and passes nothing else")
    netdev: dict[str, Value] = {"type": "user", "id": "ssh", "net": f"10.0.{_NUMBER}.0/24", "restrict": True}
    netdev["hostfwd"] = [{"str": f"tcp:127.0.0.1:{port}-:22"}]
    model = next((spec.model for spec in interfaces(specs).values()), "virtio")
    card: dict[str, Value] = {"driver": MODELS[model][0], "id": DEVICE, "netdev": "ssh", **resolved.slot(DEVICE)}
    card |= {"mac": mac(facts), "romfile": ""}
    return Contribution(
        elements=(Element("netdev", netdev, why), Element("device", card, why)),
        steps=(ReservePort("tcp", "127.0.0.1", port, why),),
    )
