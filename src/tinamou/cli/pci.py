"""The verbs below ``pci``: which devices of the host can be given to guests, and taking them from it by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Group, Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import GuestError

if TYPE_CHECKING:
    from tinamou.facts.pci import PciDevice
    from tinamou.machine.passthrough import Row

app: Group = Group()


@app.command
def ls(*, tree: Switch = False, host: Path | None = None, json: Switch = False) -> None:
    """List the devices of this host, their drivers and IOMMU groups, and whether a guest can have them.

    Parameters
    ----------
    tree
        As they hang together: root complexes with their memory nodes and CPUs, bridges, groups, what a guest would see.
    host
        Of another host: a file of tinamou host record, or a folder with its sys and proc.
    """
    from tinamou.machine.passthrough import rows, rows_of

    found = rows() if host is None else rows_of(host)
    if tree and not json:
        from tinamou.machine.pci_tree import drawn

        print("\n".join(drawn(found)) or "this host has no PCI devices")
        return
    found = [one for one in found if not one.device.is_bridge]
    if json:
        output.print_json([_plain(one) for one in found])
        return
    shown = [{**_plain(one), "name": one.name or one.device.kind} for one in found]
    output.table(shown, ("address", "ids", "name", "driver", "group", "node", "state"))
    if not found:
        print("this host has no PCI devices")


@app.command
def take(address: str, /, *more: str, user: str = "", json: Switch = False) -> None:
    """Take devices from their drivers, as root, so that machines can be given them; until pci give, or a restart.

    Machines that root starts do this by themselves, and give the devices back when they end.

    Parameters
    ----------
    address
        As lspci shows it: 65:00.0. All functions of the card are taken.
    user
        Who may start machines with them, beside root.
    """
    from tinamou.machine import passthrough

    _print(passthrough.take([address, *more], user), json)


@app.command
def give(address: str, /, *more: str, json: Switch = False) -> None:
    """Give devices that were taken by hand back to the drivers they had.

    Parameters
    ----------
    address
        As lspci shows it: 65:00.0. All functions of the card are given back.
    """
    from tinamou.machine import passthrough

    _print(passthrough.give([address, *more]), json)


@app.named("create-vfs")
def create_vfs(card: str, count: int, /, *, json: Switch = False) -> None:
    """Switch on virtual functions of a card (SR-IOV), as root, each a card of its own for a machine: --pci "vf of eth2".

    They stay until pci remove-vfs, or a restart. Drivers of the host are not offered them.

    Parameters
    ----------
    card
        Its address as lspci shows it, or its network interface.
    count
        How many.
    """
    from tinamou.machine import passthrough

    _print(passthrough.create_vfs(card, count), json)


@app.named("remove-vfs")
def remove_vfs(card: str, /) -> None:
    """Switch off virtual functions that were switched on by pci create-vfs.

    Parameters
    ----------
    card
        Its address as lspci shows it, or its network interface.
    """
    from tinamou.machine import passthrough

    print(f"{passthrough.remove_vfs(card)} virtual functions of {card} are gone")


@app.named("create-mdev")
def create_mdev(card: str, kind: str, /) -> None:
    """Have the driver of a card make a device of a part of it (vGPU), as root, for a machine: --pci "mdev of 65:00.0".

    It stays until pci remove-mdev, or a restart. Its UUID is printed.

    Parameters
    ----------
    card
        Its address as lspci shows it.
    kind
        One of those that pci ls --tree lists for it.
    """
    from tinamou.machine import passthrough

    print(passthrough.create_mdev(card, kind))


@app.named("remove-mdev")
def remove_mdev(uuid: str, /) -> None:
    """Remove a device that pci create-mdev made.

    Parameters
    ----------
    uuid
        As pci create-mdev printed it.
    """
    from tinamou.machine import passthrough

    passthrough.remove_mdev(uuid)
    print(f"{uuid} is gone")


@app.command
def mig(card: str, /, *, json: Switch = False) -> None:
    """List into what parts an NVIDIA card can be divided (MIG, by its driver), and how many more of each there can be.

    Parameters
    ----------
    card
        Its address as lspci shows it.
    """
    from tinamou.machine import gpu_instances

    rows = [late.asdict(one) for one in gpu_instances.profiles(card)]
    if json:
        output.print_json(rows)
    else:
        output.table([{**row, "memory": str(row["memory"])} for row in rows], ("number", "name", "free", "most", "memory"))


@app.named("create-mig")
def create_mig(card: str, profile: str, /) -> None:
    """Make a part of an NVIDIA card (MIG: a GPU instance), as root, for kinds of vGPU that lie in one: pci create-mdev.

    It stays until pci remove-mig, or a restart. Its number is printed.

    Parameters
    ----------
    card
        Its address as lspci shows it.
    profile
        The name or number of one that pci mig lists.
    """
    from tinamou.machine import gpu_instances

    print(gpu_instances.create(card, profile))


@app.named("remove-mig")
def remove_mig(card: str, number: int, /) -> None:
    """Remove a part of a card that pci create-mig made.

    Parameters
    ----------
    card
        Its address as lspci shows it.
    number
        As pci create-mig printed it.
    """
    from tinamou.machine import gpu_instances

    gpu_instances.remove(card, number)
    print(f"GPU instance {number} of {card} is gone")


@app.command
def check(name: str, /, *, transfer: Switch = False, json: Switch = False) -> int:
    """Look from inside a running guest at its devices of the host: driver, memory regions, interrupts, link, memory node.

    Parameters
    ----------
    transfer
        Its disks are read too, and compared with what pci measure found on this host.
    """
    from tinamou.operations.devices import check as look

    found = run_until_done(look(name, transfer=transfer))
    rows = [{**late.asdict(one), "good": one.good} for one in found]
    if json:
        output.print_json(rows)
    else:
        shown = [{**row, "good": "yes" if row["good"] else "NO"} for row in rows]
        output.table(shown, ("device", "about", "good", "text"))
    return 0 if all(one.good for one in found) else GuestError.code


@app.command
def measure(address: str, /, *, json: Switch = False) -> None:
    """Read the disks of a device that the host has, as root, and keep how fast that went, for pci check --transfer.

    Parameters
    ----------
    address
        As lspci shows it: 65:00.0.
    """
    from tinamou.machine.transfers import here

    rates = here(address)
    if json:
        output.print_json(rates)
        return
    for rate in rates:
        print(f"{rate >> 20} MiB a second")


def _print(devices: list[PciDevice], json: bool) -> None:
    if json:
        output.print_json([str(one.address) for one in devices])
        return
    for one in devices:
        print(one)


def _plain(row: Row) -> dict[str, object]:
    one = row.device
    return {
        "address": str(one.address),
        "ids": one.ids,
        "kind": one.kind,
        "name": row.name,
        "driver": one.driver,
        "group": "" if one.group is None else one.group,
        "node": "" if one.node < 0 else one.node,
        "state": row.state,
        "free": row.free,
        "root": one.root,
        "bridges": list(one.bridges),
        "cpus": str(one.cpus),
        "interfaces": list(one.nets),
        "resets": list(one.reset_methods),
        "virtual_functions": list(one.vfs),
        "of": str(one.parent or ""),
        "mediated": [late.asdict(kind) for kind in one.mediated],
        "parts": list(row.parts),
    }
