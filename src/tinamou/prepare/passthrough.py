"""Takes PCI functions from the host's drivers for a guest, and gives them back: for a machine, or by hand for any.

Written down in the ledger before the first driver is touched: the driver each had. What someone else took from vfio-pci
meanwhile is left alone and reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinamou.blueprint import TakePciGroup
from tinamou.errors import PrepareError
from tinamou.facts.pci import VFIO
from tinamou.prepare.journal import Entry, Journal
from tinamou.state import ledger
from tinamou.state.ledger import Device, Ledger
from tinamou.system import pci
from tinamou.system.exec import CommandError

__all__ = ["give_by_hand", "give_devices", "give_group", "take_by_hand", "take_group"]


def take_group(step: TakePciGroup, journal: Journal) -> None:
    """Binds the functions to vfio-pci and lets the machine's user open their group. Raises PrepareError."""
    machine = str(journal.path.parent)
    journal.take("pci", devices=list(step.devices), machine=machine)
    with ledger.edit() as held:
        for address in step.devices:
            known = held.devices.get(address)
            if known is not None and known.machine not in ("", machine):
                raise PrepareError(
                    f"{address} was leased to {Path(known.machine).name} a moment ago", fix="stop that machine first"
                )
        for address in step.devices:
            _note(held, address).machine = machine
        _bind(held, step.devices)
        for address, region, size in step.regions:
            _resize(held, address, region, size)
        for address, way in step.resets:
            _reset_by(held, address, way)
        if step.owner is not None:
            pci.let_open(step.group, step.owner)


def _note(held: Ledger, address: str) -> Device:
    return held.devices.setdefault(address, Device(pci.driver(address), pci.owner(pci.group(address))))


def _bind(held: Ledger, addresses: Sequence[str]) -> None:
    """Written down, then bound. Raises PrepareError."""
    ledger.save(held)
    try:
        pci.provide_vfio()
        for address in addresses:
            pci.bind(address, VFIO)
    except (OSError, CommandError) as error:
        raise PrepareError(
            f"{', '.join(addresses)} cannot be given to a guest",
            why=str(error),
            fix="see the kernel's log; tinamou doctor says what the IOMMU lacks",
        ) from error


def _resize(held: Ledger, address: str, region: int, size: int) -> None:
    """Written down, then resized: a reset keeps the size, and giving the device back restores the one it had."""
    known = held.devices[address]
    try:
        known.region = known.region or f"{region} {pci.region_size(address, region)}"
        ledger.save(held)
        pci.resize(address, region, size)
    except OSError as error:
        raise PrepareError(
            f"region {region} of {address} cannot have {size >> 20} MiB",
            why=str(error),
            fix="leave region out; above 4G decoding in the firmware setup makes room",
        ) from error


def _reset_by(held: Ledger, address: str, way: str) -> None:
    """Written down, then chosen."""
    known = held.devices[address]
    try:
        known.reset = known.reset or f"{pci.resets(address)}, {way}"
        ledger.save(held)
        pci.reset_by(address, way)
    except OSError as error:
        raise PrepareError(
            f"{address} cannot be reset by {way} alone", why=str(error), fix="leave reset out; see the kernel's log"
        ) from error


def give_group(entry: Entry) -> None:
    """Undoes `take_group`: every function is its former driver's again, or waits on for others when taken by hand."""
    give_devices(str(entry["machine"]))


def give_devices(machine: str) -> None:
    """The machine of that folder has no functions any more."""
    with ledger.edit() as held:
        for address, known in list(held.devices.items()):
            if known.machine != machine:
                continue
            if known.by_hand or known.driver == VFIO:
                pci.let_open(pci.group(address), known.owner)
            known.machine = ""
            _restore_region(held, address)
            _restore_reset(held, address)
            if not known.by_hand:
                _release(held, address)


def _restore_region(held: Ledger, address: str) -> None:
    """The size its memory region had, while nobody else has taken it from vfio-pci."""
    region, _, size = held.devices[address].region.partition(" ")
    held.devices[address].region = ""
    if not region or pci.driver(address) != VFIO:
        return
    try:
        pci.resize(address, int(region), int(size))
    except OSError as error:
        held.reports.append(f"region {region} of {address} keeps its size: {error}")


def _restore_reset(held: Ledger, address: str) -> None:
    """The ways to reset it that it had, while nobody else has chosen others."""
    before, _, left = held.devices[address].reset.partition(", ")
    held.devices[address].reset = ""
    if not left or (now := pci.resets(address)) == before:
        return
    if now != left:
        held.reports.append(f"{address} is reset by {now or 'nothing'}, tinamou had left {left}: someone else changed it")
        return
    try:
        pci.reset_by(address, before)
    except OSError as error:
        held.reports.append(f"{address} is still reset by {left} alone: {error}")


def _release(held: Ledger, address: str) -> None:
    """To its former driver, unless somebody took it from vfio-pci; whatever went otherwise is to be reported."""
    before, now = held.devices[address].driver, pci.driver(address)
    if now == VFIO != before:
        try:
            pci.unbind(address, before)
        except OSError as error:
            held.reports.append(f"{address}: {error}")
    elif now not in (VFIO, before):
        held.reports.append(
            f"{address} is with {now or 'no driver'}, tinamou had left it with {VFIO}: someone else changed it, it stays so"
        )
    del held.devices[address]


def take_by_hand(addresses: list[str], user: int) -> None:
    """Binds functions to vfio-pci until they are given back, for machines of that user.

    Raises PrepareError; what was bound until then is given back.
    """
    fresh = [address for address in addresses if address not in ledger.look().devices]
    try:
        with ledger.edit() as held:
            for address in addresses:
                known = _note(held, address)
                known.by_hand, known.owner = True, user
            _bind(held, addresses)
            for address in addresses:
                if not held.devices[address].machine:
                    pci.let_open(pci.group(address), user)
    except PrepareError:
        give_by_hand(fresh)
        raise


def give_by_hand(addresses: list[str]) -> None:
    """Gives functions back to the drivers they had. Raises PrepareError for those that are not held by hand, or leased."""
    with ledger.edit() as held:
        for address in addresses:
            known = held.devices.get(address)
            if known is None or not known.by_hand:
                raise PrepareError(f"{address} was not taken by hand", fix="see: tinamou pci ls")
            if known.machine:
                raise PrepareError(f"{address} is leased to {Path(known.machine).name}", fix="stop that machine first")
        for address in addresses:
            if held.devices[address].driver == VFIO:
                pci.let_open(pci.group(address), 0)
            _release(held, address)
