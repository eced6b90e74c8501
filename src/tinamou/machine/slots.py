"""The hot-plug slots of a machine: which it was started with, which are spoken for, and a free one."""

from __future__ import annotations

from tinamou.control import Session
from tinamou.control.slots import free_slot
from tinamou.spec import load_spec
from tinamou.state.folder import plan_data
from tinamou.state.record import Record

__all__ = ["free_for", "slot_of_share"]


async def free_for(record: Record, session: Session | None) -> int | None:
    """The first slot nothing sits in, nor is to sit in; None for a machine that is off and has none.

    Raises ControlError for a running machine without a free one.
    """
    spec, slots = load_spec(record.spec), _slots(record)
    taken = {port for port in (*(disk.port for disk in spec.disk), *(card.port for card in spec.net)) if port}
    taken |= {slot_of_share(record, number) for number in range(len(spec.share))}
    if session is not None:
        return await free_slot(session, taken)
    return next((number for number in slots if number not in taken), None)


def slot_of_share(record: Record, number: int) -> int:
    """The slot of a shared folder: they have the machine's last ones."""
    slots = _slots(record)
    return slots[len(slots) - len(load_spec(record.spec).share) + number]


def _slots(record: Record) -> list[int]:
    devices = [element["props"] for element in plan_data(record)["elements"]]
    return sorted(int(one["slot"]) for one in devices if one.get("driver") == "pcie-root-port" and "slot" in one)
