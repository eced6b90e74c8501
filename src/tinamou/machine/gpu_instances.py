"""Parts of NVIDIA cards that their driver divides (MIG): which sizes there can be, made and removed by hand.

They lie beneath kinds of vGPU, which `tinamou.machine.passthrough.create_mdev` makes; a divided card itself is no guest's.
"""

from __future__ import annotations

from tinamou.errors import PrepareError, Problem
from tinamou.machine.passthrough import card_called
from tinamou.state import ledger
from tinamou.system import nvml
from tinamou.system.rooted import Rooted

__all__ = ["create", "profiles", "remove"]


def profiles(name: str) -> list[nvml.Profile]:
    """The sizes of parts a card can be divided into. Raises PrepareError where it cannot."""
    return nvml.profiles(str(card_called(name, Rooted()).address))


def create(name: str, profile: str) -> int:
    """Make a part of a card (MIG: a GPU instance), by the name or number of its profile, until `remove`; its number.

    The driver chooses that: it is in the ledger right after. Raises PrepareError.
    """
    address = str(card_called(name, Rooted()).address)
    offered = nvml.profiles(address)
    found = next((one for one in offered if profile in (one.name, str(one.number))), None)
    reason = "the card has no such profile" if found is None else "there can be no more of it"
    if found is None or not found.free:
        kinds = ", ".join(f"{one.name} ({one.free} more)" for one in offered)
        raise PrepareError(
            f"{address} is not divided",
            problems=[
                Problem("profile", profile, f"{reason}: it has {kinds}", "choose another, or: tinamou pci remove-mig")
            ],
        )
    with ledger.edit() as held:
        number = nvml.create(address, found.number)
        held.gpu_instances[f"{address}/{number}"] = found.name
    return number


def remove(name: str, number: int) -> None:
    """Remove a part that `create` made. Raises PrepareError for another's, and where the driver does not do it."""
    address = str(card_called(name, Rooted()).address)
    with ledger.edit() as held:
        if f"{address}/{number}" not in held.gpu_instances:
            raise PrepareError(
                f"GPU instance {number} of {address} was not made by tinamou", fix="whoever made it removes it"
            )
        if any(one.number == number for one in nvml.instances(address)):
            nvml.destroy(address, number)
        del held.gpu_instances[f"{address}/{number}"]
