"""Network interfaces as every reader meets them: which card, which address, which ports lead in.

The card is virtio wherever the guest may have the driver: every other one is emulated register by register.
"""

from __future__ import annotations

import re
from typing import Any

from tinamou.convert.result import Draft
from tinamou.units import Mac

__all__ = ["card", "forward", "narrowed", "set_mac"]

_VIRTIO = ("virtio", "virtio-net", "virtio-net-pci", "virtio-net-device", "virtio-transitional", "virtio-non-transitional")
_MODELS = {"e1000": "e1000", "e1000e": "e1000e", "rtl8139": "rtl8139", "vmxnet3": "vmxnet3"}
_HOSTFWD = re.compile(r"(?P<protocol>tcp|udp)?:(?P<address>[^:]*):(?P<port>\d+)-(?P<guest>[^:]*):(?P<to>\d+)")


def card(draft: Draft, net: dict[str, Any], where: str, model: str, *, windows: bool = False) -> None:
    """The card the guest sees. A Windows guest keeps one it has a driver for."""
    name = model.lower()
    if name in _VIRTIO and draft.get("os"):
        net["model"] = "virtio"
    if name in _VIRTIO or not name:
        return
    if windows:
        net["model"] = _MODELS.get(name, "e1000e")
        reason = "Windows has no virtio driver of its own, so the card stays one it knows"
        draft.changed(where, model, reason, "install the virtio drivers, then leave model out: several times faster")
        return
    reason = f"virtio instead of {model}: one copy and no emulated registers, several times the speed"
    kept = _MODELS.get(name, "e1000")
    draft.changed(where, model, reason, f'set model = "{kept}" for a guest without the driver (Windows as installed)')


def forward(draft: Draft, net: dict[str, Any], where: str, text: str) -> None:
    """``tcp:ADDRESS:PORT-GUEST:PORT`` of QEMU's user network."""
    match = _HOSTFWD.fullmatch(text)
    if not match:
        draft.lost(where, text, "not a forwarded port of the form tcp:address:port-guest:port", "set forward = …")
        return
    protocol, address = match["protocol"] or "tcp", match["address"]
    if address in ("", "0.0.0.0"):  # noqa: S104 - it is what is refused here
        address = narrowed(draft, where, text, f"{protocol}:0.0.0.0:{match['port']}:{match['to']}", "QEMU")
    if match["guest"] not in ("", "10.0.2.15"):
        draft.changed(where, text, f"the guest has one address: {match['guest']} is not needed")
    net.setdefault("forward", []).append(f"{protocol}:{address}:{match['port']}:{match['to']}")


def narrowed(draft: Draft, where: str, text: str, wide: str, who: str) -> str:
    """The address in place of every one; how it would be ``wide`` is told."""
    reason = f"{who} listens on every address of the host, for everybody; here on 127.0.0.1"
    draft.check(where, text, reason, f'set forward = ["{wide}"] where other hosts shall reach it')
    return "127.0.0.1"


def set_mac(draft: Draft, net: dict[str, Any], where: str, text: str) -> None:
    """The hardware address, where it is one; a placeholder or a group address is said."""
    try:
        mac = str(Mac.parse(text.replace("-", ":")))
        if not mac.strip("0:"):
            raise ValueError("every card of this address is the same")
        net["mac"] = mac
    except ValueError as error:
        draft.check(where, text, f"{error}; one is derived from the machine's name", "set mac = …")
