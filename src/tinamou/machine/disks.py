"""A machine's disks before, while and after it runs: the chains it starts from, and the way in for snapshot operations."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tinamou import late
from tinamou.errors import ImageError, StateError, if_full
from tinamou.facts import ChainFile, ImageFacts, files
from tinamou.images.progress import Progress, silent
from tinamou.machine.turns import turn
from tinamou.parts.disk import DiskSpec, numbered
from tinamou.parts.disk.nodes import file_options
from tinamou.snapshots.orphans import is_suspended
from tinamou.spec import MachineSpec, load_spec
from tinamou.state.folder import image_of, plan_data
from tinamou.state.record import Record
from tinamou.system.paths import state_dir

if TYPE_CHECKING:
    from tinamou.control import Session
    from tinamou.images.chain import Layer
    from tinamou.snapshots.graph import Attached, BlockGraph
    from tinamou.snapshots.history import DiskEntry, History
    from tinamou.snapshots.machine_disks import Disks

__all__ = ["FOR_A_COPY", "existing_chains", "held", "known_disks", "opened", "put_right_at_rest", "refuse_shared"]

FOR_A_COPY = "clone"
"""The schedule of a snapshot that is there while something is copied from it, and no longer."""

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
    tops = {m[1]: (Path(m[0]), m[2], image.disk) for p in _listed(directory) if (m := _FIRST.fullmatch(p))}
    if (directory / files.SNAPSHOTS).exists():
        from tinamou.snapshots.history import load

        for name, disk in load(directory).present.items():
            tops[name] = (Path(disk.top), disk.format, disk.floor)
    return {name: _checked(directory / top, directory, kind, floor) for name, (top, kind, floor) in tops.items()}


def _listed(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def put_right_at_rest(record: Record) -> None:
    """Finish or undo what a crash left half done to the disks of a machine that is off, and whose turn is the caller's.

    Raises StateError, ImageError.
    """
    from tinamou.snapshots.history import load

    if not record.file(files.SNAPSHOTS).exists() or load(record.path).intent is None:
        return
    from tinamou.snapshots.machine_disks import Disks
    from tinamou.snapshots.reconcile import reconcile

    _at_once(reconcile(Disks(record.path, owner=record.uid, keys=_keys(record))))


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


@contextlib.asynccontextmanager
async def held(record: Record, what: str, *, progress: Progress = silent) -> AsyncIterator[Disks]:
    """A machine's disks, which are nobody else's to change, with its QEMU's monitor while it runs; nothing is put right.

    ``what`` is what others are told is being done. Raises StateError, ControlError.
    """
    from tinamou.control import connect_qmp
    from tinamou.snapshots.machine_disks import Disks

    if is_suspended(record):
        why = "the memory it was saved with belongs to its disks as they are"
        raise StateError(f"machine {record.name} is suspended", why=why, fix=f"tinamou resume {record.name}")
    async with contextlib.AsyncExitStack() as stack:
        record = await stack.enter_async_context(turn(record, what))
        session = None
        if record.running:
            connecting = connect_qmp(record.directory, alive=lambda: record.running)
            session = await stack.enter_async_context(await connecting)
        try:
            yield Disks(record.path.resolve(), record.uid, session, keys=_keys(record), progress=progress)
        except OSError as error:
            why = f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"
            fix = if_full(why, "do it again; what was begun is put right first")
            raise StateError(f"the disks of {record.name} cannot be worked on", why=why, fix=fix) from error


@contextlib.asynccontextmanager
async def opened(record: Record, what: str, *, progress: Progress = silent) -> AsyncIterator[tuple[Disks, History]]:
    """As `held`, with the history made true and complete; the way in for everything that changes disks."""
    from tinamou.snapshots.history import load, save
    from tinamou.snapshots.reconcile import put_right

    async with held(record, what, progress=progress) as disks:
        graph = await _graph(disks)
        found = load(disks.directory)
        before = await put_right(disks, found)
        graph = graph if found.intent is None else None
        history = await known_disks(record, disks, before, graph)
        if history != before:
            save(disks.directory, history)
        if left := [one.number for one in history.snapshots if one.schedule == FOR_A_COPY]:
            from tinamou.snapshots.merge import forget, tidy

            for number in left:  # whoever copied from it was killed: it is our turn
                history = forget(disks, history, str(number))
            history, graph = await tidy(disks, history), None
        yield late.replace(disks, options=_options(record, history), graph=graph), history


async def _graph(disks: Disks) -> BlockGraph | None:
    """QEMU's block graph; None while the machine is off, or where a job that was left over changes it."""
    import asyncio

    from tinamou.snapshots.graph import block_graph
    from tinamou.snapshots.jobs import drop_orphans

    if disks.session is None:
        return None
    graph, ended = await asyncio.gather(block_graph(disks.session), drop_orphans(disks.session))
    return None if ended else graph


async def known_disks(record: Record, disks: Disks, history: History, graph: BlockGraph | None = None) -> History:
    """The history with every disk the machine has now; ``graph`` is QEMU's where it has just been asked for."""
    from tinamou.snapshots.machine_disks import listed_disks, record_disks

    listed = listed_disks(record)
    if disks.session is not None:
        return record_disks(history, await _running_disks(disks, disks.session, history.present, graph), listed)
    try:
        return record_disks(history, _resting_disks(record, disks), listed)
    except ImageError:
        if history.disks:
            return history
        raise


async def _running_disks(
    disks: Disks, session: Session, known: Mapping[str, DiskEntry], graph: BlockGraph | None
) -> dict[str, DiskEntry]:
    """Every disk the guest can write to, as QEMU has it open."""
    from tinamou.snapshots.graph import attached

    found = {}
    for device, one in (graph.devices if graph else await attached(session)).items():
        name = device.removesuffix("-dev")
        if not one.readonly and one.files and device != name:
            found[name] = known.get(name) or await _disk_of(disks, session, one)
    return found


async def _disk_of(disks: Disks, session: Session, one: Attached) -> DiskEntry:
    from tinamou.images.chain import read_layer
    from tinamou.snapshots.graph import driver_of
    from tinamou.snapshots.history import DiskEntry

    floor, driver = Path(one.files[-1]), await driver_of(session, one.top)
    kind = driver if len(one.files) == 1 else _floor_format(Path(one.files[-2]))
    return DiskEntry(one.device, disks.name(one.files[0]), driver, disks.name(str(floor)), read_layer(floor, kind).format)


def _floor_format(above: Path) -> str:
    from tinamou.system.qcow2 import read_header

    return read_header(above).backing_format


def _resting_disks(record: Record, disks: Disks) -> dict[str, DiskEntry]:
    """The same from spec and files, for a machine that is off."""
    from tinamou.snapshots.history import DiskEntry

    image = image_of(record)
    spec = load_spec(record.spec)
    chains = existing_chains(spec, image, disks.directory)
    writable = {f"disk{n}" for n, disk in numbered(spec.disk, 1 if image.disk else 0) if not disk.readonly}
    writable |= {"disk0"} if image.disk else set()
    return {
        name: DiskEntry(f"{name}-dev", disks.name(c[0].path), c[0].format, disks.name(c[-1].path), c[-1].format)
        for name, c in chains.items()
        if name in writable
    }


def _keys(record: Record) -> dict[str, str]:
    """The files with the passphrases of encrypted disks, by disk."""
    specs = numbered(load_spec(record.spec).disk, _first(record))
    return {f"disk{number}": spec.key for number, spec in specs if spec.key}


def _first(record: Record) -> int:
    """The number of the first disk that is not the image's."""
    return 1 if image_of(record).disk else 0


def _options(record: Record, history: History) -> dict[str, Mapping[str, object]]:
    """How the overlays of each disk read and write: like the disk's first file."""
    by_name = {f"disk{number}": spec for number, spec in numbered(load_spec(record.spec).disk, _first(record))}
    settled = {name: _with_aio(by_name.get(name, DiskSpec(path="image")), record, name) for name in history.disks}
    return {name: cast("Mapping[str, object]", file_options(options)) for name, options in settled.items()}


def _with_aio(options: DiskSpec, record: Record, disk: str) -> DiskSpec:
    """The disk's options with ``aio`` as the plan of its last start settled it."""
    if options.aio != "auto":
        return options
    elements = plan_data(record)["elements"] if record.file(files.PLAN).exists() else []
    nodes = (one["props"]["file"] for one in elements if re.fullmatch(rf"{disk}(\D.*)?", str(one["props"].get("node-name"))))
    ways = [file["aio"] for file in nodes if isinstance(file, dict) and "aio" in file]
    return late.replace(options, aio=ways[-1] if ways else "threads")
