"""Which groups of system calls a machine's QEMU is allowed (system/syscalls.py says what is in each)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tinamou.blueprint import Calls, Element, Value, Why
from tinamou.parts.protocol import Resolved
from tinamou.parts.security import HOSTS

__all__ = ["EVERY", "HELPERS", "decide", "of_elements"]

_ANY = ("memory", "files", "events", "threads", "signals", "time", "identity", "sockets", "sandbox")
EVERY = (*_ANY, "cards")
"""What any machine needs, or may have plugged in while it runs."""
HELPERS: dict[str, tuple[str, ...]] = {
    "swtpm": (*_ANY, "own files", "swtpm"),
    "passt": (*_ANY, "passt"),
    "dnsmasq": (*_ANY, "own files", "dnsmasq"),
    "virtiofsd": (*_ANY, "own files", "virtiofsd"),
}
"""What each helper process needs, by the first part of its name."""


def decide(resolved: Resolved, elements: Iterable[Element]) -> tuple[Calls, ...]:
    """The groups, each with the reason; none where QEMU's own filter is to be the only one."""
    spec, facts = resolved.spec, resolved.facts
    if spec.security.syscalls == "qemu" or facts.host.arch not in HOSTS:
        return ()
    every = Why("confinement", "every QEMU needs them")
    found = dict.fromkeys(EVERY, every) | of_elements(elements)
    if resolved.accel.accel == "kvm":
        found["kvm"] = resolved.accel_why
    if resolved.encryption is not None:
        found["encryption"] = Why("spec confidential.type", "the guest's memory is encrypted")
    if resolved.hotplug:
        found.setdefault("server", Why("spec devices.hotplug", "a cable that waits may be plugged in while it runs"))
    if spec.display.type != "none":
        found["server"] = Why("spec display.type", f"a {spec.display.type} server on a socket of the machine")
    if facts.qemu.script:
        found["wrapper"] = Why("host", f"{facts.qemu.binary} is a script")
    return tuple(Calls(group, why) for group, why in found.items())


def of_elements(elements: Iterable[Element]) -> dict[str, Why]:
    """The groups that these devices need beyond `EVERY`, by name."""
    found: dict[str, Why] = {}
    for element in elements:
        for group in _groups(element):
            found.setdefault(group, Why(element.why.asked_by, f"{element.id} needs them"))
    return found


def _groups(element: Element) -> Iterator[str]:
    props = element.props
    if element.kind == "netdev" and props.get("type") == "user":
        yield "internet"
    if props.get("server") and (element.kind == "netdev" or element.id.endswith("-chr")):  # other sockets are handed over
        yield "server"
    if props.get("driver") == "vfio-pci":
        yield "vfio"
    if props.get("driver") == "usb-host":
        yield "usb"
    if "host-nodes" in props:
        yield "memory nodes"
    if element.kind == "blockdev":
        yield from (way for way in _named("aio", dict(props)) if way in ("native", "io_uring"))


def _named(key: str, value: Value) -> Iterator[str]:
    """What has that name anywhere in nested properties."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from [str(inner)] if name == key else _named(key, inner)
