"""Devices of the host that machines can have: which there are, who has them, and taking them from the host by hand."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from uuid import uuid4

from tinamou.errors import PrepareError, Problem
from tinamou.facts.pci import VFIO, PciDevice, PciFacts
from tinamou.late import dataclass
from tinamou.machine.recording import opened
from tinamou.prepare import mediated, passthrough, virtual_functions
from tinamou.probe.pci import probe_pci
from tinamou.state import ledger
from tinamou.system.rooted import Rooted
from tinamou.units import PciAddress

__all__ = [
    "Row",
    "card_called",
    "create_mdev",
    "create_vfs",
    "give",
    "pci_facts",
    "remove_mdev",
    "remove_vfs",
    "rows",
    "rows_of",
    "take",
]


@dataclass(frozen=True)
class Row:
    """A function of the host and what can be said of giving it to a guest: ``state`` in words, ``free`` as a fact.

    ``parts`` are the UUIDs of devices that its driver has made of parts of it.
    """

    device: PciDevice
    name: str
    state: str
    free: bool
    parts: tuple[str, ...] = ()


def pci_facts(exclude: str = "") -> PciFacts:
    """The host's devices, and to which machines they were leased, without the one at ``exclude``."""
    held = ledger.look()
    lent = {
        **{name: one.machine for name, one in held.devices.items()},
        **{uuid: one.machine for uuid, one in held.parts.items()},
    }
    leased = {name: Path(machine).name for name, machine in lent.items() if machine not in ("", exclude)}
    return probe_pci(Rooted(), leased)


def rows() -> list[Row]:
    """Every function, bridges too."""
    return _rows(pci_facts(), {address for address, one in ledger.look().devices.items() if one.by_hand})


def rows_of(recording: Path) -> list[Row]:
    """Every function of a recorded host, bridges too. Raises ProbeError."""
    with opened(recording) as root:
        return _rows(probe_pci(Rooted(root), {}), set())


def _rows(facts: PciFacts, by_hand: set[str]) -> list[Row]:
    names = _names()
    return [
        Row(one, names.get(one.ids, ""), *_state(one, facts, by_hand), tuple(part.uuid for part in facts.parts_of(one)))
        for one in facts.devices
    ]


def _state(device: PciDevice, facts: PciFacts, by_hand: set[str]) -> tuple[str, bool]:
    if device.is_bridge:
        return "the host's board", False
    holder = facts.holder(device)
    if holder:
        return f"leased to {holder}", False
    if device.group is None:
        return "no IOMMU", False
    if device.uses:
        return "; ".join(device.uses), False
    if str(device.address) in by_hand:
        return "taken, waits for a machine", True
    with_ = [one for one in facts.group_of(device) if one not in facts.card_of(device) and not one.at_rest]
    if with_:
        return f"only together with {', '.join(str(one.address) for one in with_)}", False
    return "free", True


def _names() -> dict[str, str]:
    """``VENDOR:DEVICE`` → the name pci.ids has for it, where that file is installed (package pci.ids or hwdata)."""
    places = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids")
    place = next((path for path in map(Path, places) if path.exists()), None)
    found: dict[str, str] = {}
    vendor = maker = ""
    for line in place.read_text(errors="replace").splitlines() if place else ():
        if line.startswith("C "):
            break
        number, _, name = line.strip().partition("  ")
        if line.startswith("\t") and not line.startswith("\t\t"):
            found[f"{vendor}:{number}"] = f"{maker} {name}"
        elif line[:1].isalnum():
            vendor, maker = number, name
    return found


def take(addresses: list[str], user: str = "") -> list[PciDevice]:
    """Take devices, each with all functions of its card, from their drivers until `give`; ``user`` may start machines with
    them. Raises PrepareError with every reason why not."""
    facts = pci_facts()
    devices, problems = _found(addresses, facts)
    for one in devices:
        address = str(one.address)
        if one.is_bridge or one.group is None:
            reason = "it is a bridge" if one.is_bridge else "it is behind no IOMMU"
            problems.append(Problem(address, None, reason, "tinamou pci ls lists what can be taken"))
        if one.uses:
            problems.append(Problem(address, None, f"this host uses it: {', '.join(one.uses)}", "end that use first"))
    if os.geteuid():
        problems.append(Problem("user", os.geteuid(), "only root can take devices from their drivers", "use sudo"))
    number = _user(user, problems)
    if problems:
        raise PrepareError("the devices cannot be taken from this host", problems=problems)
    passthrough.take_by_hand([str(one.address) for one in devices], number)
    return devices


def give(addresses: list[str]) -> list[PciDevice]:
    """Give devices that were taken by hand back to the drivers they had. Raises PrepareError."""
    devices, problems = _found(addresses, pci_facts())
    if problems:
        raise PrepareError("there are no such devices", problems=problems)
    passthrough.give_by_hand([str(one.address) for one in devices])
    facts = pci_facts()
    return [facts.at(one.address) or one for one in devices]


def create_vfs(name: str, count: int, files: Rooted | None = None) -> list[PciDevice]:
    """Switch on so many virtual functions of a card, named by address or interface, until `remove_vfs`; those it has then.

    Raises PrepareError with every reason why not.
    """
    files = files or Rooted()
    card = card_called(name, files)
    problems = []
    if not card.vfs[1]:
        problems.append(Problem(name, None, "the card has no virtual functions", "tinamou pci ls --tree shows which have"))
    elif not 1 <= count <= card.vfs[1]:
        problems.append(Problem("count", count, f"the card has 1 to {card.vfs[1]}", "choose one of these"))
    if card.driver in ("", VFIO):
        reason = f"its driver is {card.driver or 'none'}: the host's own driver of the card makes them"
        problems.append(Problem(name, None, reason, "give it back to the host first: tinamou pci give"))
    if os.geteuid():
        problems.append(Problem("user", os.geteuid(), "only root can switch them on", "use sudo"))
    if problems:
        raise PrepareError(f"{card.address} cannot be given virtual functions", problems=problems)
    virtual_functions.create(str(card.address), count, files)
    return list(probe_pci(files, {}).virtual_of(card))


def remove_vfs(name: str, files: Rooted | None = None) -> int:
    """Switch off virtual functions that `create_vfs` switched on; how many. Raises PrepareError while a machine has one."""
    files = files or Rooted()
    card, held = card_called(name, files), ledger.look().devices
    problems = []
    for one in probe_pci(files, {}).virtual_of(card):
        known = held.get(str(one.address))
        if known is not None:
            who = f"{Path(known.machine).name} has it" if known.machine else "it was taken by hand"
            fix = "stop that machine first" if known.machine else f"tinamou pci give {one.address}"
            problems.append(Problem(str(one.address), None, who, fix))
        elif one.uses:
            problems.append(Problem(str(one.address), None, f"this host uses it: {', '.join(one.uses)}", "end that use"))
    if problems:
        raise PrepareError(f"the virtual functions of {card.address} are in use", problems=problems)
    return virtual_functions.remove(str(card.address), files)


def create_mdev(name: str, kind: str, files: Rooted | None = None) -> str:
    """Have the driver of a card make a device of a part of it (vGPU), until `remove_mdev`; its UUID.

    Raises PrepareError with every reason why not.
    """
    files = files or Rooted()
    card = card_called(name, files)
    offered = {one.type: one for one in card.mediated}
    problems = []
    if not offered:
        fix = "the maker's driver for virtual machines makes them; tinamou pci ls --tree shows which cards have some"
        problems.append(Problem(name, None, f"its driver ({card.driver or 'none'}) makes no devices of parts of it", fix))
    elif kind not in offered:
        kinds = ", ".join(f"{one.type} ({one.name})" for one in card.mediated)
        problems.append(Problem("type", kind, f"it makes {kinds}", "choose one of these"))
    elif not offered[kind].free:
        problems.append(Problem("type", kind, "there can be no more of it", "tinamou pci remove-mdev, or another kind"))
    if os.geteuid():
        problems.append(Problem("user", os.geteuid(), "only root can make them", "use sudo"))
    if problems:
        raise PrepareError(f"{card.address} is not divided", problems=problems)
    made = str(uuid4())
    mediated.create(str(card.address), kind, made, files)
    return made


def remove_mdev(uuid: str, files: Rooted | None = None) -> None:
    """Remove a device that `create_mdev` made. Raises PrepareError, also while a machine has it."""
    mediated.remove(uuid, files or Rooted())


def card_called(name: str, files: Rooted) -> PciDevice:
    """The function of that address, or with that interface. Raises PrepareError."""
    found = probe_pci(files, {}).called(name)
    if found is None:
        raise PrepareError(f"this host has no device and no interface {name}", fix="tinamou pci ls lists them")
    return found


def _found(addresses: list[str], facts: PciFacts) -> tuple[list[PciDevice], list[Problem]]:
    """The cards of these addresses, all functions of each, and what is wrong with the addresses."""
    found: dict[PciAddress, PciDevice] = {}
    problems = []
    for text in addresses:
        try:
            device = facts.at(PciAddress.parse(text))
        except ValueError as error:
            problems.append(Problem("address", text, str(error)))
            continue
        if device is None:
            problems.append(Problem("address", text, "this host has no such device", "tinamou pci ls lists them"))
        else:
            found |= {one.address: one for one in facts.card_of(device)}
    return list(found.values()), problems


def _user(name: str, problems: list[Problem]) -> int:
    try:
        return pwd.getpwnam(name).pw_uid if name else 0
    except KeyError:
        problems.append(Problem("--user", name, "there is no such user"))
        return 0
