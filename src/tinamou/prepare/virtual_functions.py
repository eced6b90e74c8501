"""Virtual functions (SR-IOV) switched on for guests, and off again: written down in the ledger before the card is touched.

While they are made no driver of the host is offered them (``sriov_drivers_autoprobe``), so that no interfaces come and go.
Source: Documentation/ABI/testing/sysfs-bus-pci, sriov_numvfs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tinamou.errors import PrepareError
from tinamou.state import ledger
from tinamou.state.ledger import VirtualFunctions
from tinamou.system.rooted import Rooted

__all__ = ["create", "remove"]

_FOLDER = "/sys/bus/pci/devices"


def create(address: str, count: int, files: Rooted) -> None:
    """Switch on so many virtual functions of a card that has none on. Raises PrepareError with the kernel's reason."""
    with ledger.edit() as held:
        now = _count(address, files)
        if now:
            why = f"{now} are on: a card is only given another number when it has none"
            raise PrepareError(
                f"{address} has virtual functions already", why=why, fix=f"tinamou pci remove-vfs {address} first"
            )
        held.vfs[address] = VirtualFunctions(now, count)
        ledger.save(held)
        try:
            with _unoffered(address, files):
                files.write(f"{_FOLDER}/{address}/sriov_numvfs", str(count))
        except OSError as error:
            if not _count(address, files):
                del held.vfs[address]
            fix = "see the kernel's log; where regions do not fit: SR-IOV and above 4G decoding in the firmware setup"
            raise PrepareError(
                f"{address} does not make {count} virtual functions", why=error.strerror or str(error), fix=fix
            ) from error


def remove(address: str, files: Rooted) -> int:
    """Switch off what `create` switched on, and tell how many those were. Raises PrepareError where others changed it."""
    with ledger.edit() as held:
        known = held.vfs.get(address)
        if known is None:
            raise PrepareError(
                f"no virtual functions of {address} were made by tinamou", fix="whoever switched them on switches them off"
            )
        now = _count(address, files)
        if now not in (known.left, known.before):
            why = f"{now} are on, tinamou had left {known.left}: someone else changed it, it stays so"
            del held.vfs[address]
            raise PrepareError(f"the virtual functions of {address} are not given back", why=why)
        try:
            if now != known.before:
                files.write(f"{_FOLDER}/{address}/sriov_numvfs", str(known.before))
        except OSError as error:
            raise PrepareError(
                f"the virtual functions of {address} stay", why=error.strerror or str(error), fix="see the kernel's log"
            ) from error
        del held.vfs[address]
        return known.left


def _count(address: str, files: Rooted) -> int:
    return files.integer(f"{_FOLDER}/{address}/sriov_numvfs") or 0


@contextlib.contextmanager
def _unoffered(address: str, files: Rooted) -> Iterator[None]:
    """No driver is offered what is made meanwhile, on kernels that can leave that out (4.12 and newer)."""
    path = f"{_FOLDER}/{address}/sriov_drivers_autoprobe"
    before = files.read(path)
    if before is None:
        yield
        return
    files.write(path, "0")
    try:
        yield
    finally:
        files.write(path, before)
