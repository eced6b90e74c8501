"""Which monitor socket of a machine is for whom: QEMU serves one client per socket at a time, so there are two."""

from __future__ import annotations

from collections.abc import Callable

from tinamou.control.session import Session, connect

__all__ = ["OWNER", "VISITORS", "connect_qmp"]

OWNER = "qmp.sock"
"""Held as long as the process that runs or watches the machine likes; it hears every event."""

VISITORS = "qmp2.sock"
"""Everybody else: connect, ask, disconnect. Those who come at the same time are served in turn."""


async def connect_qmp(
    directory: str, *, owner: bool = False, alive: Callable[[], bool] | None = None, timeout: float = 10.0
) -> Session:
    """A session with the machine whose files are in ``directory``; ``timeout`` in seconds. Raises ControlError.

    ``owner`` says that the session will be held for long. Any other session must be closed after a few commands.
    """
    return await connect(f"{directory}/{OWNER if owner else VISITORS}", alive=alive, timeout=timeout)
