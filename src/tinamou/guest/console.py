"""The terminal as the guest's serial console."""

from __future__ import annotations

from tinamou.errors import GuestError

__all__ = ["attach"]


async def attach(directory: str) -> int:
    """Attach the terminal to the console of the machine in ``directory``."""
    raise GuestError("the console cannot be attached yet", fix=f"read {directory}/serial.log, or use tinamou exec")
