"""Machines made of machines: a copy with an identity of its own, in full or over files both read; and templates."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.images.chain import read_chain
from tinamou.images.offline import made
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.machine import persistent
from tinamou.machine.disks import FOR_A_COPY, opened
from tinamou.machine.known_by import with_paths
from tinamou.machine.renaming import refuse_awake
from tinamou.machine.turns import turn
from tinamou.parts.net import NetSpec
from tinamou.snapshots import extras
from tinamou.snapshots.backup_shelf import refuse_encrypted
from tinamou.snapshots.create import create as freeze
from tinamou.snapshots.history import DiskEntry, History, Snapshot, load, save
from tinamou.snapshots.layers import read_forest
from tinamou.snapshots.machine_disks import Disks, crypto_header, fresh_name
from tinamou.snapshots.merge import forget, tidy
from tinamou.spec import MachineSpec, dump_spec, load_spec
from tinamou.state import machines
from tinamou.state.folder import image_of
from tinamou.state.record import Record, change
from tinamou.system.loop_thread import in_thread
from tinamou.system.qcow2 import write_overlay

__all__ = ["Cloned", "clone", "clones_of", "frozen_disks", "mark_template", "own_card", "refuse_base"]


@dataclass(frozen=True)
class Cloned:
    """A clone, which is off, and what is to be said of it."""

    record: Record
    notes: tuple[str, ...] = ()


async def clone(name: str, new: str, *, linked: bool = False, progress: Progress = silent) -> Cloned:
    """A new machine, off, with the disks of another as they are now, and an identity of its own.

    ``linked`` copies nothing: the files that hold the disks are never written again, and both machines write to new ones
    over them. The source may run; its disks are then as after a power cut. Raises SpecError, StateError, ImageError; there
    is no clone then.
    """
    load_spec({"name": new}, source="the new name")
    async with turn(machines.find(name), "clone") as record:
        persistent.refuse(record, "cloned", "both machines would write to it")
        spec, notes = _own(load_spec(record.next_spec), record, new)
        with machines.making(new) as directory:
            await _give(record, directory, linked=linked, progress=progress)
            fresh = await in_thread(_record, record, directory, spec)
            await in_thread(_hand_over, directory, fresh.uid)
            (fresh,) = machines.entered(fresh)
        return Cloned(fresh, tuple(notes))


async def _give(record: Record, directory: Path, *, linked: bool, progress: Progress) -> None:
    """The disks of the moment, and what lies beside them."""
    owners = extras.owners_of(record.uid)
    extras.copy_files(record.path, directory, [files.IMAGE], owners)
    await in_thread(_bring_boot_files, record.path, directory)
    if not image_of(record).disk and not load_spec(record.spec).disk:
        extras.copy_files(record.path, directory, [files.UEFI_VARS], owners)
        if (record.path / "tpm").is_dir():
            extras.copy_tpm(record.path, directory, owners)
        return
    async with opened(record, "clone", progress=progress) as (disks, history), frozen_disks(record, disks, history) as shot:
        if linked:
            await in_thread(_link, disks, history, shot, directory)
        else:
            refuse_encrypted(disks, history, shot)
            for what in shot.files.items():
                await _copy(disks, history, what, image_of(record).disk, directory, progress)
        kept = extras.folder(disks, shot.number)
        source, theirs = (kept, extras.owners_of(None)) if kept.is_dir() else (disks.directory, owners)
        extras.copy_files(source, directory, [files.UEFI_VARS], theirs)
        if (source / "tpm").is_dir():
            extras.copy_tpm(source, directory, theirs)


def _bring_boot_files(source: Path, directory: Path) -> None:
    """What an imported machine boots from lies in its own folder."""
    for name in ("kernel", "fast_kernel", "initrd"):
        if (source / name).exists():
            (directory / name).hardlink_to(source / name)
    with_paths(directory / files.IMAGE, f"{source}/", f"{directory}/")


@contextlib.asynccontextmanager
async def frozen_disks(record: Record, disks: Disks, history: History) -> AsyncIterator[Snapshot]:
    """The disks of one moment, in files that nobody writes to until the block ends; those of a template are so anyway."""
    if record.template:
        yield Snapshot(0, "", {name: entry.top for name, entry in history.present.items()})
        return
    taken = await freeze(disks, history, note="for a copy", schedule=FOR_A_COPY)
    try:
        yield taken.snapshot
    finally:
        await tidy(disks, forget(disks, load(disks.directory), str(taken.snapshot.number)))


async def _copy(
    disks: Disks, history: History, what: tuple[str, str], image: str, directory: Path, progress: Progress
) -> None:
    """All a disk reads as, in a file of the clone's own; over the machine's image where it is over that already."""
    disk, file = what
    forest, entry = read_forest(disks, history, disk), history.disks[disk]
    layer = forest.layers[file]
    argv = [disks.qemu_img, "convert", "-p", "-U", "-W", "-f", layer.format, "-O", "qcow2"]
    if image and entry.floor == image and file != image:
        argv += ["-B", image, "-F", entry.floor_format]
    target = directory / f"{disk}.qcow2"
    words = [*argv, layer.path, str(target)]
    await made(words, f"copying {disk}", forest.files(file), target, mode=0o600, progress=progress)


def _link(disks: Disks, history: History, shot: Snapshot, directory: Path) -> None:
    """The same files under the clone's folder too, and a new one over each disk. Raises StateError, OSError."""
    number, entries = history.counter + 1, {}
    for disk, file in shot.files.items():
        entry = history.disks[disk]
        chain = read_chain(disks.path(file), format=entry.format, trusted=[Path(entry.floor)])
        for layer in (one for one in chain if Path(one.path).parent == disks.directory):
            _share(Path(layer.path), directory)
        below, top = chain[0], fresh_name(disk, number)
        size = int(below.header.size) if below.header else below.length
        write_overlay(directory / top, size, disks.name(below.path), below.format, crypto=crypto_header(below))
        entries[disk] = DiskEntry(entry.device, top, "qcow2", entry.floor, entry.floor_format)
    save(directory, History(disks=entries, counter=number))


def _share(path: Path, directory: Path) -> None:
    """A file that nobody writes to from now on belongs to this user: who reads it is handed it open."""
    if not (directory / path.name).exists():
        (directory / path.name).hardlink_to(path)
        os.chown(path, os.geteuid(), os.getegid(), follow_symlinks=False)


def _record(source: Record, directory: Path, spec: MachineSpec) -> Record:
    fresh: dict[str, Any] = {"later": {}, "former": [], "template": False, "parent": "", "timings": {}, "ended": ""}
    fresh |= {"move": {}, "generation": 0}
    fresh |= dict.fromkeys(("pid", "started", "owner_pid", "owner_started", "log_from"), 0)
    fresh |= {"pinning": [], "ephemeral": False, "notes": []}
    fresh |= {"name": directory.name, "directory": str(directory), "uid": machines.lease_uid(directory), "base": source.name}
    port = machines.free_port() if source.ssh_port else None
    own = dump_spec(late.replace(spec, name=directory.name))
    return late.replace(source, **fresh, spec=own, created=time.time(), ssh_port=port)


def _hand_over(directory: Path, uid: int | None) -> None:
    """Give QEMU's files to the user id it will have; those that both machines read stay this user's."""
    if uid is None:
        return
    for path in directory.iterdir():
        if path.suffix in (".qcow2", ".raw", ".fd") and path.stat().st_nlink == 1:
            os.chown(path, uid, uid)


def _own(spec: MachineSpec, record: Record, new: str) -> tuple[MachineSpec, list[str]]:
    """The description without what only one machine can have, and what that was."""
    nets, notes = [], []
    for number, card in enumerate(spec.net):
        fresh, said = own_card(card, f"net[{number}]", record.name, new)
        nets.append(fresh)
        notes += said
    if spec.seed.hostname:
        notes.append(f"seed.hostname was {spec.seed.hostname}: its guest is called {new}")
    lent = [f"pci[{number}]" for number, _ in enumerate(spec.pci)]
    lent += [f"usb[{number}]" for number, one in enumerate(spec.usb) if one.type == "host"]
    notes += [f"{one} is {record.name}'s too: not both can have it at once" for one in lent]
    macs = {number: one.mac for number, one in enumerate(spec.pci) if one.mac}
    notes += [f"pci[{number}].mac is {record.name}'s ({mac}): {new} has none of its own yet" for number, mac in macs.items()]
    if (record.path / "tpm").is_dir():
        notes.append(f"its TPM is a copy: it opens what {record.name}'s sealed, and has the same keys")
    image = image_of(record)
    if (image.disk or spec.disk) and not image.seed:
        notes.append(f"nothing in its guest makes new ssh host keys and a new machine id: they are {record.name}'s")
    devices = tuple(late.replace(one, mac="") for one in spec.pci)
    return late.replace(spec, net=tuple(nets), pci=devices, seed=late.replace(spec.seed, hostname="")), notes


def own_card(card: NetSpec, field: str, old: str, new: str) -> tuple[NetSpec, list[str]]:
    """A card with addresses of its own, and what it has lost or still shares."""
    lost: dict[str, object] = {"mac": card.mac, "address": card.address, "forward": card.forward}
    said = {name: _shown(value) for name, value in lost.items() if value}
    notes = [f"{field}.{name} is {old}'s ({value}): {new} has none of its own yet" for name, value in said.items()]
    shared = {"interface": card.interface, "socket": card.socket}
    both = {name: value for name, value in shared.items() if value}
    notes += [f"{field}.{name} = {value} is {old}'s too: not both can have it at once" for name, value in both.items()]
    fresh = late.replace(card, mac=None, forward=())
    return (late.replace(fresh, address="", gateway="", dns=()) if card.address else fresh), notes


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


async def mark_template(name: str, *, undo: bool = False) -> Record:
    """Make a machine that is off a template, which is cloned and nothing else; or a machine again. Raises StateError."""
    async with turn(machines.find(name), "template") as record:
        if not undo:
            refuse_awake(record, "made a template")
        elif record.template:
            _refuse_clones(record, "a machine again")
        return change(record, template=not undo)


def _refuse_clones(record: Record, done: str) -> None:
    if clones := clones_of(record):
        why = f"clones read its files: {', '.join(clones)}"
        raise StateError(f"{record.name} cannot be {done}", why=why, fix="remove those first")


def refuse_base(record: Record, *, force: bool) -> None:
    """Raises StateError for a template that clones rest on, unless ``force``; their files are theirs as well, and stay."""
    if record.template and not force and (clones := clones_of(record)):
        why = f"clones read its files, and no more can be made then: {', '.join(clones)}"
        fix = f"remove those first; tinamou rm -f {record.name} leaves them what they read"
        raise StateError(f"{record.name} is a template that others rest on", why=why, fix=fix)


def clones_of(record: Record) -> list[str]:
    """The machines whose disks read files that are this one's as well, by name; those of its clones are among them."""
    mine = set(_files(record.path))
    return [one.name for one in machines.machines() if one.name != record.name and mine & set(_files(one.path))]


def _files(folder: Path) -> Iterator[tuple[int, int]]:
    for path in folder.glob("disk*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            yield status.st_dev, status.st_ino
