"""A file of a machine's state, handed to QEMU: as a set of descriptors it opens by name, or as one descriptor.

From 11.0 on a plain file is named by ``file:`` alone (source: removed-features.rst of QEMU), 7.2 knows ``fd:`` alone. A set
is searched for a descriptor of exactly the mode that is asked for: writing alone to save, reading alone to load.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from tinamou import late
from tinamou.blueprint import Flag, Plan, Why
from tinamou.control import Session
from tinamou.control.commands import add_fd, getfd
from tinamou.errors import ControlError, StateError
from tinamou.facts.qemu import numbered
from tinamou.launch.handover import FDSET
from tinamou.probe.qemu import probe_qemu
from tinamou.system.closing import Closing

__all__ = ["loading", "loads", "saved_to"]

_NAME = "state"
_SET = 1 << 20
"""The set a state is loaded from: far above those of a machine's files, which are counted from 1."""


def _opens_files(binary: str) -> bool:
    return probe_qemu(binary).has("transport:file")


def _refuse_replaced(session: Session, binary: str) -> None:
    """What the old one saves next to shared memory is for itself alone, and nobody could start it any more."""
    now = probe_qemu(binary)
    if (now.version, now.package) != (session.version, session.package):
        here = f"it runs QEMU {numbered(session.version, session.package)}, {binary} is another by now"
        fix = "take a portable checkpoint of it (--kind portable), or start it again"
        raise StateError("the machine's QEMU was replaced since it was started", why=here, fix=fix)


@contextlib.asynccontextmanager
async def saved_to(session: Session, path: Path, binary: str) -> AsyncIterator[str]:
    """A new file, handed to the QEMU of ``binary``: what it is told to migrate to.

    Raises StateError where the file of that name is another QEMU by now, OSError, ControlError.
    """
    _refuse_replaced(session, binary)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    number = None
    with Closing(descriptor):
        if _opens_files(binary):
            number = await add_fd(session, descriptor, note=_NAME)
        else:
            await getfd(session, descriptor, _NAME)
    try:
        yield f"fd:{_NAME}" if number is None else f"file:{FDSET}{number}"
    finally:
        if number is not None:
            with contextlib.suppress(ControlError):  # QEMU is gone, or was never given it
                await session.execute("remove-fd", fdset_id=number)


def loads(plan: Plan, state: int) -> Plan:
    """The plan of a QEMU that inherits the open file ``state``, which is open for reading alone, and will load it."""
    if not _opens_files(plan.binary):
        return plan
    given = Flag("add-fd", Why("fork", "the saved state, an open file"), options={"fd": state, "set": _SET})
    return late.replace(plan, flags=(*plan.flags, given))


def loading(plan: Plan, state: int) -> list[tuple[str, Mapping[str, object]]]:
    """The commands that load it, of a plan that `loads` made."""
    if not _opens_files(plan.binary):
        return [("migrate-incoming", {"uri": f"fd:{state}"})]
    return [("migrate-incoming", {"uri": f"file:{FDSET}{_SET}"}), ("remove-fd", {"fdset-id": _SET})]
