"""The chains of files a machine's disks are read through, before it runs: found, checked, put right, nobody else's."""

from __future__ import annotations

import os
import re
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinamou.errors import ImageError
from tinamou.facts import ChainFile, ImageFacts, files
from tinamou.parts.disk import DiskSpec, numbered
from tinamou.spec import MachineSpec, load_spec
from tinamou.state.folder import image_of
from tinamou.state.record import Record
from tinamou.system.paths import state_dir

if TYPE_CHECKING:
    from tinamou.images.chain import Layer

__all__ = ["existing_chains", "first_number", "keys_of", "put_right_at_rest", "refuse_shared"]

_FIRST = re.compile(r"(disk\d+)\.(qcow2|raw)")


def existing_chains(spec: MachineSpec, image: ImageFacts, directory: Path) -> dict[str, tuple[ChainFile, ...]]:
    """The chains of the image and of every disk that exists already, read from the headers and checked on the way.

    Raises ImageError for a file that is missing, damaged, of another format than its header's reader expects, or outside
    the folders it may lie in; StateError.
    """
    chains = _own_chains(directory, image)
    if image.disk and image.built and image.format != "iso" and "disk0" not in chains:
        from tinamou.images.chain import read_chain

        chains["image"] = _files(read_chain(image.disk, format=_declared(image.format)), directory)
    for number, disk in numbered(spec.disk, 1 if image.disk else 0):
        _check_key(disk, chains.get(f"disk{number}", ()))
        if disk.path and disk.interface != "cdrom" and f"disk{number}" not in chains:
            chains[f"disk{number}"] = _checked(Path(disk.path), directory, _declared(disk.format))
            _check_key(disk, chains[f"disk{number}"])
    chains |= {f"pmem{number}": (_raw(Path(one.path)),) for number, one in enumerate(spec.pmem)}
    if chains and directory.is_dir():
        from tinamou.images.seal import check_seals

        check_seals(
            directory / files.SEALS, {f.path for chain in chains.values() for f in chain if not f.own and f != chain[0]}
        )
    return chains


def _raw(path: Path) -> ChainFile:
    """A file whose bytes the guest has as they are. Raises ImageError for one of another format."""
    from tinamou.images.chain import read_layer

    layer = read_layer(path)
    if layer.format not in ("raw", "iso"):
        why = f"it is {layer.format}: the guest would have the bytes of the file, not those of the disk that is in it"
        fix = f"qemu-img convert -O raw {path} FILE, and name that; or name it as a disk"
        raise ImageError(f"{path} cannot be persistent memory (pmem)", why=why, fix=fix)
    return ChainFile(str(path), "raw", size=layer.length)


def _check_key(disk: DiskSpec, chain: tuple[ChainFile, ...]) -> None:
    """A disk of that key exists already: is it encrypted, and only then? Raises ImageError."""
    for file in chain:
        if file.encrypted and not disk.key:
            raise ImageError(f"{file.path} is encrypted", fix="name the file that holds its passphrase: key = PATH")
        if disk.key and not file.encrypted:
            raise ImageError(f"{file.path} is not encrypted", why=f"a key is given for it: {disk.key}", fix="leave it out")


def _own_chains(directory: Path, image: ImageFacts) -> dict[str, tuple[ChainFile, ...]]:
    listed = _listed(directory)
    tops = {m[1]: (Path(m[0]), m[2], image.disk) for p in listed if (m := _FIRST.fullmatch(p))}
    if files.SNAPSHOTS in listed:
        from tinamou.snapshots.history import load

        for name, disk in load(directory).present.items():
            tops[name] = (Path(disk.top), disk.format, disk.floor)
    return {name: _checked(directory / top, directory, kind, floor) for name, (top, kind, floor) in tops.items()}


def _listed(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if os.path.isdir(directory) else []  # noqa: PTH112, PTH208


def put_right_at_rest(record: Record) -> None:
    """Finish or undo what a crash left half done to the disks of a machine that is off, and whose turn is the caller's.

    Raises StateError, ImageError.
    """
    from tinamou.snapshots.history import load

    if not record.file(files.SNAPSHOTS).exists() or load(record.path).intent is None:
        return
    from tinamou.snapshots.machine_disks import Disks
    from tinamou.snapshots.reconcile import reconcile

    _at_once(reconcile(Disks(record.path, owner=record.uid, keys=keys_of(record))))


def _at_once(work: Coroutine[Any, Any, Any]) -> None:
    """Run what waits for nothing: without a monitor there is nobody to wait for. Raises RuntimeError where it waits."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise RuntimeError("what was to be done at once waits for something")


def _declared(kind: str) -> str:
    return "" if kind in ("auto", "") else kind


def _checked(path: Path, directory: Path, kind: str = "", floor: str = "") -> tuple[ChainFile, ...]:
    from tinamou.images.chain import read_chain, verify_tables

    layers = read_chain(path, format=kind, trusted=[Path(floor)] if floor else [])
    verify_tables(layers[0], tables=64)
    return _files(layers, directory)


def _files(layers: tuple[Layer, ...], directory: Path) -> tuple[ChainFile, ...]:
    own, frozen = directory.resolve(), (state_dir() / "checkpoints").resolve()

    def file(layer: Layer) -> ChainFile:
        folder, locked = Path(layer.path).parent, bool(layer.header and layer.header.encryption)
        size = int(layer.header.size) if layer.header else layer.length if layer.format == "raw" else 0
        odd = layer.length % 512 > 0
        return ChainFile(layer.path, layer.format, folder == own, locked, folder.parent == frozen, size, odd, layer.packed)

    return tuple(map(file, layers))


def refuse_shared(chains: Mapping[str, tuple[ChainFile, ...]]) -> None:
    """Two writers would destroy a disk: what QEMU's own locks would refuse is told by name. Raises ImageError."""
    if not chains:
        return
    from tinamou.system.image_locks import processes_with_open, written_by_others

    for chain in chains.values():
        path = chain[0].path
        if written_by_others(path):
            who = ", ".join(f"{comm} ({pid})" for pid, comm in processes_with_open(path)) or "a process of another user"
            raise ImageError(f"{path} is open for writing elsewhere", why=f"in {who}", fix="end that program first")


def keys_of(record: Record) -> dict[str, str]:
    """The files with the passphrases of encrypted disks, by disk."""
    specs = numbered(load_spec(record.spec).disk, first_number(record))
    return {f"disk{number}": spec.key for number, spec in specs if spec.key}


def first_number(record: Record) -> int:
    """The number of the first disk that is not the image's."""
    return 1 if image_of(record).disk else 0
