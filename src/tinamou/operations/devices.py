"""Devices of the host that a machine has, by the machine's name."""

from __future__ import annotations

from tinamou.machine import life, pci_check
from tinamou.machine.connected import Connected
from tinamou.machine.pci_check import Said

__all__ = ["Said", "check"]


async def check(name: str, *, transfer: bool = False) -> list[Said]:
    """Whether the guest has them as it should; see `tinamou.machine.pci_check.check`. Raises StateError, GuestError."""
    async with Connected.visiting(life.running(name)) as machine:
        return await pci_check.check(machine, transfer=transfer)
