"""What a guest says of its own memory, through its balloon (source: QEMU docs, interop/virtio-balloon-stats)."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager

from tinamou.control import RefusedError, Session
from tinamou.control.answers import member, number, record, records
from tinamou.control.commands import monitor, qom_get, qom_set
from tinamou.monitor.observation import NO_DRIVER, GuestMemory
from tinamou.units import Size

__all__ = ["Visit", "ask", "ask_again", "set_balloon", "stop_asking"]

Visit = Callable[[], Awaitable[AbstractAsyncContextManager[Session]]]
"""Enters a session for a few commands with one machine."""

_NAME = "balloon0"
_DEVICE = f"/machine/peripheral/{_NAME}"
_INTERVAL = "guest-stats-polling-interval"
_UNKNOWN = (1 << 64) - 1
"""What QEMU shows for a number that the guest did not tell."""

_PAUSE = 0.1
_REGION, _STATUS, _DRIVER_OK = 4, 0x14, 4
"""Where a virtio device of PCI has its status, and the bit that its driver sets at last."""


async def ask(visit: Visit, size: Size, *, running: bool, wait: float, every: int) -> GuestMemory:
    """The guest's numbers, once it has told them anew, for which at most ``wait`` seconds are waited.

    QEMU asks the guest every ``every`` seconds from now on; with 0 it goes on as it did before. The monitor is left between
    questions: others may want it; there are none where QEMU has asked all along. Raises ControlError.
    """
    async with await visit() as session:
        try:
            holds = await _holds(session)
            before = number({"": await qom_get(session, _DEVICE, _INTERVAL)}, "")
        except RefusedError:
            return GuestMemory(size, size, why="the machine has no balloon device")
        asked = int(time.time()) - every
        await qom_set(session, _DEVICE, _INTERVAL, every or before or 1)
        if (every or before) and _updated(fresh := await _stats(session)) >= asked:
            return _memory(size, holds, fresh)
    told = await _fresh(visit, asked, wait if running else 0.0)
    async with await visit() as session:
        if not every and not before:
            await qom_set(session, _DEVICE, _INTERVAL, 0)
        if told is None:
            return GuestMemory(size, holds, why=await _why_nothing(session, running))
        return _memory(size, await _holds(session), told)


async def ask_again(session: Session, before: GuestMemory, every: int) -> GuestMemory | None:
    """The same by one question, where QEMU asks the guest every ``every`` seconds and its balloon was not heard of since.

    None where the guest has not told anything as lately as it should. Raises ControlError.
    """
    told = await _stats(session)
    return _memory(before.size, before.holds, told) if _updated(told) >= int(time.time()) - every else None


async def stop_asking(visit: Visit) -> None:
    """QEMU asks the guest no more. Raises ControlError."""
    async with await visit() as session:
        with contextlib.suppress(RefusedError):
            await qom_set(session, _DEVICE, _INTERVAL, 0)


async def _holds(session: Session) -> Size:
    return Size(number(record(await session.execute("query-balloon")), "actual", least=0))


async def _fresh(visit: Visit, asked: int, wait: float) -> Mapping[str, object] | None:
    """The numbers as soon as they were told at ``asked`` or later, else the newest there are; None where there are none."""
    deadline = time.monotonic() + wait
    while True:
        async with await visit() as session:
            answer = await _stats(session)
        updated = _updated(answer)
        if updated >= asked or time.monotonic() >= deadline:
            return answer if updated else None
        await asyncio.sleep(_PAUSE)


async def _stats(session: Session) -> Mapping[str, object]:
    return record(await qom_get(session, _DEVICE, "guest-stats"))


def _updated(answer: Mapping[str, object]) -> int:
    """When the guest told it, in seconds since 1970; 0 where it has not."""
    return number(answer, "last-update", 0)


def _memory(size: Size, holds: Size, answer: Mapping[str, object]) -> GuestMemory:
    stats = record(member(answer, "stats"))

    def told(key: str) -> Size | None:
        value = number(stats, f"stat-{key}", _UNKNOWN, least=-1)
        return None if value in (_UNKNOWN, -1) else Size(value)

    available = told("available-memory")
    available = told("free-memory") if available is None else available
    age = max(0.0, time.time() - number(answer, "last-update"))
    why = "" if available is not None else "the guest's balloon driver tells nothing of its memory"
    return GuestMemory(
        size,
        holds,
        available,
        told("free-memory"),
        told("disk-caches"),
        told("swap-in"),
        told("swap-out"),
        age,
        why,
    )


async def _why_nothing(session: Session, running: bool) -> str:
    ready = await _driver_ready(session)
    if ready is False:
        return NO_DRIVER
    if not running:
        return "the guest stands still, and told nothing before"
    return "the guest's balloon driver has not answered yet"


async def _driver_ready(session: Session) -> bool | None:
    """Whether the guest's driver has taken the device; None where this cannot be told.

    It is read where the guest sees it, by commands that no QEMU of 7.2 to 11.1 was seen to end from. Source: virtio 1.2,
    4.1.4.3; QEMU's hw/virtio/virtio-pci.c, which has that structure at the beginning of the fourth region.
    """
    buses = records(await session.execute("query-pci"))
    devices = [one for bus in buses for one in records(bus.get("devices", [])) if one.get("qdev_id") == _NAME]
    for region in (one for device in devices for one in records(device.get("regions", []))):
        if region.get("bar") == _REGION:
            address = number(region, "address", -1)
            if address <= 0:
                return False
            said = await monitor(session, f"xp /1xb {address + _STATUS:#x}")
            found = re.search(r": 0x([0-9a-f]{2})\b", said)
            return bool(int(found[1], 16) & _DRIVER_OK) if found else None
    return None


async def set_balloon(session: Session, target: Size) -> None:
    """Tell the guest how much memory it may hold; it complies when it can. Raises ControlError without a balloon."""
    await session.execute("balloon", value=int(target))
