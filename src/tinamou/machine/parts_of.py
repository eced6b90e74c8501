"""What a machine has several of, as a program handles it: its snapshots, its disks, its network cards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinamou import late
from tinamou.errors import StateError
from tinamou.fields import size_of
from tinamou.late import dataclass
from tinamou.machine.of_host import of_host
from tinamou.parts.net import interfaces, mac_of
from tinamou.parts.net.wiring import host_link
from tinamou.parts.windows import settled
from tinamou.spec import load_spec
from tinamou.state import machines
from tinamou.state.record import Record
from tinamou.system.paths import Host
from tinamou.units import Size

if TYPE_CHECKING:
    from tinamou.snapshots.history import Snapshot

__all__ = ["AsyncDisks", "AsyncNics", "AsyncSnapshots", "Disk", "Nic", "nics_of"]


@dataclass(frozen=True)
class Disk:
    """One of a machine's disks: ``file`` is what its guest writes to, in the machine's folder unless absolute; ``files`` how
    many files it is read through; ``size`` what the guest sees, ``used`` what its files take on this host, in bytes."""

    name: str
    file: str
    files: int
    size: Size
    used: Size


@dataclass(frozen=True)
class Nic:
    """One of a machine's network cards: ``network`` is the bridge, interface or network it is on, ``link`` its end on this
    host, where there is one; ``address`` and ``address6`` those it was given by a network of tinamou's."""

    name: str
    type: str
    network: str
    model: str
    mac: str
    address: str
    address6: str
    link: str


class _Of:
    """Part of the machine of that name, on that host."""

    def __init__(self, name: str, host: Host) -> None:
        self._name, self._host = name, host

    def _record(self) -> Record:
        return machines.find(self._name)


@of_host
class AsyncSnapshots(_Of):
    """The snapshots of one machine's disks. Every method raises StateError for a machine that is gone, or busy."""

    async def list(self) -> tuple[Snapshot, ...]:
        """All of them, oldest first."""
        from tinamou.machine.snapshots import history_of

        return history_of(self._record()).snapshots

    async def create(self, name: str = "", *, note: str = "", quiesce: float = 0.0) -> Snapshot:
        """Freeze the present state of all disks, running or not.

        ``quiesce``, in seconds, has the guest hold its file systems still for at most that long; 0 does not ask it. Raises
        StateError, GuestError, ControlError; nothing has changed then.
        """
        from tinamou.machine.snapshots import take

        return (await take(self._record(), name, note=note, quiesce=quiesce)).snapshot

    async def revert(self, name: str) -> None:
        """Make a snapshot's state the present one; the machine must be off. Raises StateError."""
        from tinamou.machine.snapshots import go_back

        await go_back(self._record(), name)

    async def remove(self, *names: str) -> None:
        """Strike snapshots and merge their files; what is left reads the same. Raises StateError for an unknown name."""
        from tinamou.machine.snapshots import remove

        await remove(self._record(), [*names])


@of_host
class AsyncDisks(_Of):
    """The disks of one machine. Every method raises StateError for a machine that is gone, or busy."""

    async def list(self) -> tuple[Disk, ...]:
        """Those its guest can write to, then its optical drives, each with the disc in it."""
        from tinamou.machine.disk_changes import listed

        rows: list[Any] = await listed(self._record())
        return tuple(Disk(**{**row, "size": Size(row["size"]), "used": Size(row["used"])}) for row in rows)

    async def add(self, path: str | Path = "", **settings: Any) -> str:
        """Give the machine a disk, at once while it runs: a file, or ``size="10G"`` for a new one; its name.

        ``settings`` are the fields of a disk in a machine file (docs/reference/spec.md). Raises SpecError, PlanError,
        ImageError, PrepareError, ControlError; nothing has changed then.
        """
        from tinamou.machine.disk_plugging import plug

        table = {**({"path": str(path)} if path else {}), **settings}
        return await plug(self._record(), load_spec({"disk": [table]}).disk[0])

    async def remove(self, name: str, *, timeout: float = 30.0, force: bool = False) -> None:
        """Take a disk away; a running guest gives it back first, within ``timeout`` seconds.

        Its data go with it, but for what snapshots hold and files of your own; ``force`` also where what was written to
        such a file since its first snapshot would be lost. Raises StateError, ControlError; it is still there then.
        """
        from tinamou.machine.disk_plugging import unplug

        await unplug(self._record(), name, seconds=timeout, force=force)

    async def resize(self, name: str, size: Size | str) -> None:
        """Make a disk larger; a running guest sees it at once. Raises StateError for a smaller one, SpecError."""
        from tinamou.machine.disk_changes import resize

        await resize(self._record(), name, size_of(size, "size") if isinstance(size, str) else size)


@of_host
class AsyncNics(_Of):
    """The network cards of one machine. Every method raises StateError for a machine that is gone, or busy."""

    async def list(self) -> tuple[Nic, ...]:
        """All of them, in the order of their numbers."""
        return nics_of(self._record())

    async def add(self, type: str = "auto", **settings: Any) -> str:
        """Give the machine a card, at once while it runs; its name.

        ``settings`` are the fields of a network in a machine file (docs/reference/spec.md). Raises SpecError, PlanError,
        PrepareError, ControlError; nothing has changed then.
        """
        from tinamou.machine.cards import add

        number, _ = await add(self._name, {"type": type, **settings})
        return f"net{number}"

    async def remove(self, name: str) -> None:
        """Take a card away; the others keep their names. Raises StateError, ControlError."""
        from tinamou.machine.cards import remove

        await remove(self._name, name)

    async def change(self, name: str, **settings: Any) -> None:
        """Describe a card anew, from the next start on: ``change("net0", model="virtio")``. Raises SpecError, PlanError."""
        from tinamou.machine.cards import change

        await change(self._name, name, settings)


def _drivers(record: Record) -> tuple[str, ...]:
    """Virtio's drivers that were found on its image; none where it was not started yet, or that is not known any more."""
    from tinamou.state.folder import image_of

    try:
        return tuple(image_of(record).drivers)
    except StateError:
        return ()


def nics_of(record: Record) -> tuple[Nic, ...]:
    """The cards of a machine, as its description and this host have them."""
    from tinamou.parts.net.network import name_of
    from tinamou.state import networks

    found = []
    for number, spec in interfaces(settled(load_spec(record.spec), _drivers(record)).net).items():
        made = spec.type == "bridge" and not spec.bridge
        members = networks.members(name_of(spec)) if made else []
        mine = next((one for one in members if one.name == f"{record.name}.{number}"), None)
        nic = Nic(
            name=f"net{number}",
            type=spec.type,
            network=name_of(spec) if made else spec.bridge or spec.interface or spec.socket,
            model=spec.model,
            mac=str(mac_of(spec, record.identity, number)),
            address=spec.address,
            address6="",
            link=host_link(spec, record.directory, number),
        )
        found.append(late.replace(nic, address=mine.address, address6=mine.address6) if mine else nic)
    return tuple(found)
