"""The hot-plug slots of a running machine, as QEMU has them: which there are, and which are free."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from tinamou.control.answers import record, records, text
from tinamou.control.session import Session
from tinamou.errors import ControlError

__all__ = ["free_slot"]

_SLOT = re.compile(r"plug(\d{1,4})")


async def free_slot(session: Session, taken: Collection[int]) -> int:
    """The first hot-plug slot nothing sits in, besides those that are ``taken``: what sits behind a port that the guest's
    firmware has not set up yet, QEMU does not tell. Raises ControlError where there is none.
    """
    slots = dict(_slots(records(await session.execute("query-pci"))))
    for number, used in sorted(slots.items()):
        if not used and number not in taken:
            return number
    why = f"its {len(slots)} slots are taken" if slots else "it was started without any"
    raise ControlError(
        "nothing more can be plugged into the machine", why=why, fix="stop it, or set devices.hotplug and start it again"
    )


def _slots(buses: Iterable[Mapping[str, object]]) -> Iterator[tuple[int, bool]]:
    for bus in buses:
        for device in records(bus.get("devices", ())):
            match = _SLOT.fullmatch(text(device, "qdev_id", ""))
            if match:
                yield int(match[1]), bool(record(device.get("pci_bridge", {})).get("devices"))
