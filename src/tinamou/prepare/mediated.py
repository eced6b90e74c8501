"""Devices that drivers make of parts of their cards (mdev): made and removed by hand, and lent to machines.

Written down in the ledger before the driver is asked. One that somebody else made is lent too, and never removed.
Source: Documentation/driver-api/vfio-mediated-device.rst.
"""

from __future__ import annotations

from pathlib import Path

from tinamou.blueprint import TakePart
from tinamou.errors import PrepareError
from tinamou.prepare.journal import Entry, Journal
from tinamou.state import ledger
from tinamou.state.ledger import Part
from tinamou.system import pci
from tinamou.system.rooted import Rooted

__all__ = ["create", "give", "remove", "take"]

_CARDS, _MADE = "/sys/bus/pci/devices", "/sys/bus/mdev/devices"


def create(card: str, kind: str, uuid: str, files: Rooted) -> None:
    """Have the driver of a card make one of that kind. Raises PrepareError with the kernel's reason."""
    with ledger.edit() as held:
        held.parts[uuid] = Part(card, kind)
        ledger.save(held)
        try:
            files.write(f"{_CARDS}/{card}/mdev_supported_types/{kind}/create", uuid)
        except OSError as error:
            del held.parts[uuid]
            fix = "see the kernel's log; a card is often divided into one kind at a time"
            why = error.strerror or str(error)
            raise PrepareError(f"{card} does not make a {kind}", why=why, fix=fix) from error


def remove(uuid: str, files: Rooted) -> None:
    """Remove one that `create` made. Raises PrepareError for another's, and while a machine has it."""
    with ledger.edit() as held:
        known = held.parts.get(uuid)
        if known is None or not known.card:
            raise PrepareError(f"{uuid} was not made by tinamou", fix="whoever made it removes it")
        if known.machine:
            raise PrepareError(f"{Path(known.machine).name} has {uuid}", fix="stop that machine first")
        try:
            if files.exists(f"{_MADE}/{uuid}"):
                files.write(f"{_MADE}/{uuid}/remove", "1")
        except OSError as error:
            why = error.strerror or str(error)
            raise PrepareError(f"{uuid} stays", why=why, fix="see the kernel's log") from error
        del held.parts[uuid]


def take(step: TakePart, journal: Journal) -> None:
    """Lease it, and let the machine's user open its group. Raises PrepareError where another machine was faster."""
    machine = str(journal.path.parent)
    journal.take("mdev", part=step.part, group=step.group, machine=machine)
    with ledger.edit() as held:
        known = held.parts.setdefault(step.part, Part())
        if known.machine not in ("", machine):
            raise PrepareError(
                f"{step.part} was leased to {Path(known.machine).name} a moment ago", fix="stop that machine first"
            )
        known.machine = machine
        ledger.save(held)
        if step.owner is not None:
            pci.let_open(step.group, step.owner)


def give(entry: Entry) -> None:
    """Undoes `take`."""
    with ledger.edit() as held:
        known = held.parts.get(str(entry["part"]))
        if known is None or known.machine != entry["machine"]:
            return
        pci.let_open(int(str(entry["group"])), 0)
        known.machine = ""
        if not known.card:
            del held.parts[str(entry["part"])]
