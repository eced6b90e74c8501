"""Which monitor socket of a machine is for whom: QEMU serves one client per socket at a time, so there are two.

The owner's is held as long as the process that runs the machine likes, which hears every event; by a watch until somebody
wants it. At the visitors' everybody else connects, asks and disconnects; those who come at the same time are served in turn.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from tinamou.control.session import Session, connect
from tinamou.facts import files
from tinamou.system.turns import Turn

__all__ = ["connect_qmp", "owners_turn"]


async def connect_qmp(
    directory: str, *, owner: bool = False, alive: Callable[[], bool] | None = None, timeout: float = 10.0
) -> Session:
    """A session with the machine whose files are in ``directory``; ``timeout`` in seconds. Raises ControlError.

    ``owner`` says that the session will be held for long; a watch that holds that monitor is shown that it is wanted. Any
    other session must be closed after a few commands.
    """
    if not owner:
        return await connect(f"{directory}/{files.QMP_VISITORS}", alive=alive, timeout=timeout)
    turn = owners_turn(directory)
    with contextlib.suppress(OSError):  # what is wrong with the folder, connecting says better
        turn.wait()
    try:
        return await connect(f"{directory}/{files.QMP}", alive=alive, timeout=timeout)
    finally:
        turn.stop_waiting()


def owners_turn(directory: str) -> Turn:
    """The sign by which who only listens on the owner's monitor sees that somebody wants it."""
    return Turn(f"{directory}/{files.QMP}.lock")
