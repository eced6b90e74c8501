"""The RAM backend: the only place that decides what guest memory is made of."""

from __future__ import annotations

from tinamou.blueprint import Contribution, Element, Flag, Value, Why
from tinamou.parts.memory import MemorySpec
from tinamou.parts.settled import Need, SharedMemory


def contribute(spec: MemorySpec, needs: tuple[Need, ...]) -> Contribution:
    """One memory backend object, ``-m``, and the machine's link to it."""
    shared = next((need for need in needs if isinstance(need, SharedMemory)), None)
    why = shared.why if shared else Why("spec memory.size", f"{spec.size} of guest memory, private to this machine")
    kind = "memory-backend-memfd" if shared else "memory-backend-ram"
    props: dict[str, Value] = {"qom-type": kind, "id": "ram0", "size": int(spec.size), "share": bool(shared)}
    size = Flag("m", Why("spec memory.size", "the size the guest sees"), f"{spec.size.mib}M")
    link = Flag(
        "machine", Why("tuning memory", "guest memory is the backend object ram0"), options={"memory-backend": "ram0"}
    )
    return Contribution(elements=(Element("object", props, why),), flags=(size, link))
