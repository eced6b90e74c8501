"""Keeps a USB device of the host for one machine, and gives it back to the host's drivers.

QEMU takes it from its drivers when it opens it, and gives it back when it ends in good order; after a crash, nobody's driver
has it, and it is offered to them anew. Source: Linux drivers/usb/core/devio.c, Documentation/ABI/testing/sysfs-bus-usb.
"""

from __future__ import annotations

from pathlib import Path

from tinamou.blueprint import TakeUsbDevice
from tinamou.errors import PrepareError
from tinamou.prepare.journal import Entry, Journal
from tinamou.state import ledger
from tinamou.system.rooted import Rooted

__all__ = ["give_device", "take_device"]

_FOLDER, _PROBE = "/sys/bus/usb/devices", "/sys/bus/usb/drivers_probe"


def take_device(step: TakeUsbDevice, journal: Journal) -> None:
    """Write down that the machine has it. Raises PrepareError where another one has."""
    machine = str(journal.path.parent)
    journal.take("usb", port=step.port, machine=machine)
    with ledger.edit() as held:
        if held.usb.get(step.port, machine) != machine:
            other = Path(held.usb[step.port]).name
            raise PrepareError(f"{step.port} was leased to {other} a moment ago", fix="stop that machine first")
        held.usb[step.port] = machine


def give_device(entry: Entry, files: Rooted | None = None) -> None:
    """Undoes `take_device`: functions of it that no driver has are offered to the host's drivers again."""
    files, port = files or Rooted(), str(entry["port"])
    with ledger.edit() as held:
        if held.usb.get(port) != str(entry["machine"]):
            return
        del held.usb[port]
        for name in files.names(_FOLDER):
            alone = name.startswith(f"{port}:") and not files.exists(f"{_FOLDER}/{name}/driver")
            if alone and files.writable(_PROBE):
                try:
                    files.write(_PROBE, name)
                except OSError as error:
                    held.reports.append(f"no driver of the host took {name} back: {error.strerror}")
