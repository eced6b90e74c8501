"""What of a plan shapes the guest's hardware: that, and nothing else, must be the same where a saved state is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator

from tinamou import late
from tinamou.blueprint import Element, Flag, Plan

__all__ = ["differences", "digest", "fitted", "hardware", "without_more"]

_FLAGS = frozenset({"machine", "smp", "cpu", "m", "accel", "numa", "global", "device", ""})
_OURS = frozenset({"mac", "guid", "drive"})
"""Device properties that are a machine's own, or names inside QEMU, and no hardware."""
_HUNG_ON = frozenset({"drive", "netdev", "chardev", "host", "audiodev"})


def hardware(plan: Plan) -> tuple[str, ...]:
    """One line for everything the guest can see, in an order of its own."""
    lines = [f"machine type {plan.machine_type}", f"accelerator {plan.accel}"]
    return (*lines, *_flags(plan.flags), *_devices(plan.elements))


def digest(plan: Plan) -> str:
    """SHA-256 over the hardware."""
    return hashlib.sha256("\n".join(hardware(plan)).encode()).hexdigest()


def differences(saved: Plan, now: Plan) -> list[str]:
    """What one has and the other has not, one sentence each."""
    before, after = hardware(saved), hardware(now)
    gone = [f"was saved with {line}" for line in before if line not in after]
    return [*gone, *(f"has now {line}" for line in after if line not in before)]


def fitted(now: Plan, before: Plan) -> tuple[Plan, list[str]]:
    """A plan by which a machine could go on as it was, and how it would be another one all the same."""
    now = without_more(now, before)
    return now, differences(before, now)


def without_more(now: Plan, like: Plan) -> Plan:
    """A plan without the small devices that another QEMU could give the machine, and its own did not.

    A device that something of the user's hangs on (a drive, a network, a channel) stays: it is a difference.
    """
    there = {element.id for element in like.elements}
    return late.replace(now, elements=tuple(one for one in now.elements if one.id in there or not _small(one)))


def _small(element: Element) -> bool:
    return element.kind == "device" and not _HUNG_ON & element.props.keys()


def _flags(flags: Iterable[Flag]) -> list[str]:
    return [
        f"-{flag.name} {flag.value or ''} {json.dumps(dict(flag.options), sort_keys=True)}"
        for flag in flags
        if flag.name in _FLAGS
    ]


def _devices(elements: Iterable[Element]) -> Iterator[str]:
    for element in elements:
        if element.kind == "device":
            props = {key: value for key, value in element.props.items() if key not in _OURS}
            yield f"device {json.dumps(props, sort_keys=True)}"
        elif "size" in element.props and str(element.props.get("qom-type", "")).startswith("memory-backend-"):
            yield f"memory {element.id} of {element.props['size']} bytes"
