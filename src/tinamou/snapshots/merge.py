"""Keeping chains short: files nobody names are merged with the one above them, long chains are copied together.

Two ways to merge a file F with the only file X above it: *stream* copies F up into X and drops F; *commit* copies X down
into F, which then stands for X. What X reads as never changes, so either can be cut short anywhere and done again.
"""

from __future__ import annotations

from collections.abc import Mapping

from tinamou import late
from tinamou.control import Session
from tinamou.errors import StateError
from tinamou.facts.qemu import streams_subclusters
from tinamou.images.offline import offline
from tinamou.snapshots import extras
from tinamou.snapshots.create import grow
from tinamou.snapshots.graph import Attached, Opening, attached, block_graph, close_unused, node_of, open_overlays
from tinamou.snapshots.history import History, Intent, save
from tinamou.snapshots.jobs import Target, run_job
from tinamou.snapshots.layers import Forest, own_files, read_forest
from tinamou.snapshots.machine_disks import Disks, encrypted, encryption
from tinamou.system.durable import sync_file

__all__ = ["MAX_DEPTH", "drop_disk", "finish_commit", "flatten", "forget", "mergeable", "remove_unreachable", "tidy"]

MAX_DEPTH = 16
"""Files a machine reads through before the older ones are copied together (measured: docs/guides/snapshots.md)."""

_SMALL = 64 << 20
"""Bytes that are copied up into the file the guest writes to without much thought."""

_SPARED = 8
"""Files of a disk that backups leave unmerged: half of what `MAX_DEPTH` lets it read through."""

_FRESH = 1 << 20
"""Bytes an overlay has at most when hardly anything was written to it."""


def forget(disks: Disks, history: History, name: str) -> History:
    """Strike a snapshot from the history; `tidy` then merges and removes files. Later snapshots take its parent's place."""
    gone = history.snapshot(name)
    kept = tuple(
        late.replace(one, parent=gone.parent) if one.parent == gone.number else one
        for one in history.snapshots
        if one.number != gone.number
    )
    current = gone.parent if history.current == gone.number else history.current
    after = save(disks.directory, late.replace(history, snapshots=kept, current=current))
    extras.drop(disks, gone.number)
    return after


async def tidy(disks: Disks, history: History, *, sparing: bool = False) -> History:
    """Remove what nobody reads through, and merge every unnamed file with the only one above it.

    When ``sparing``, nothing is merged on a disk with `_few` files to merge: what is written again and again is copied once
    for all of them then, and who waits for a backup does not wait for that.
    """
    for disk in [name for name, entry in history.disks.items() if entry.gone and not history.frozen(name)]:
        history = drop_disk(disks, history, disk)
    await remove_unreachable(disks, history)
    for disk in history.disks:
        if sparing and _few(disks, history, disk):
            continue
        while (pair := _mergeable(disks, history, disk)) is not None:
            history = await _merge(disks, history, *pair)
            await remove_unreachable(disks, history)
    return history


async def remove_unreachable(disks: Disks, history: History) -> list[str]:
    """Delete files of the machine's disks that neither the present state nor a snapshot reads through."""
    if disks.session is not None:
        await close_unused(disks.session, disks.directory)
        used = {disks.name(file) for one in (await attached(disks.session)).values() for file in one.files}
    else:
        used = set()
    gone = []
    for disk in history.disks:
        forest = read_forest(disks, history, disk)
        needed = forest.needed(history) | used | {history.disks[disk].floor}
        unneeded = {name for name in forest.layers.keys() - needed if "/" not in name}
        if unneeded:
            _settle(disks, forest, needed)
        for name in unneeded:
            disks.path(name).unlink()
            gone.append(name)
    return gone


def drop_disk(disks: Disks, history: History, name: str) -> History:
    """Let a disk go that the machine has no more: its files are removed, all but those that snapshots read through."""
    entry, frozen = history.disks.get(name), history.frozen(name)
    kept = {disk: one for disk, one in history.disks.items() if disk != name}
    if entry is not None and frozen:
        newest = max((one for one in history.snapshots if name in one.files), key=lambda one: one.number).files[name]
        kind = entry.floor_format if newest == entry.floor else "qcow2"
        kept[name] = late.replace(entry, top=newest, format=kind, gone=True)
    history = save(disks.directory, late.replace(history, disks=kept, intent=None))
    needed = read_forest(disks, history, name).needed(history) if frozen else frozenset()
    for file in own_files(disks, name):
        if file not in needed:
            disks.path(file).unlink()
    return history


def _settle(disks: Disks, forest: Forest, names: frozenset[str]) -> None:
    """Headers may have just stopped naming a file that is about to go: have them on stable storage first."""
    for name in names & forest.below.keys():
        sync_file(disks.path(name))


async def flatten(disks: Disks, history: History, disk: str) -> History:
    """Copy together what lies between the top and the floor of one disk's chain: three files are left to read through.

    Snapshots keep their own files. Done in the file below the top, so that the guest can go on and snapshots can be taken.
    The history it gives back is the same one where there was nothing to do.
    """
    forest = read_forest(disks, history, disk)
    chain = forest.chain(history.disks[disk].top)
    if not mergeable(disks, forest):
        why = "its files are merged by QEMU alone, which has the key"
        raise StateError(f"{disk} is encrypted", why=why, fix=f"tinamou start {disks.directory.name} first")
    if len(chain) <= 3 or "/" in chain[1] or disks.path(chain[1]).stat().st_nlink > 1:
        return history
    history = save(disks.directory, late.replace(history, flattened=(*history.flattened, chain[1])))
    await _stream(disks, history, forest, chain[1], chain[-1])
    return history


def mergeable(disks: Disks, forest: Forest) -> bool:
    """Whether files of a disk can be merged now: encrypted ones are only while the machine runs."""
    return disks.session is not None or not any(encrypted(layer) for layer in forest.layers.values())


def _few(disks: Disks, history: History, disk: str) -> bool:
    """Whether the unnamed files of a disk, all but the lowest, are at most `_SPARED`, with an eighth of its size in them."""
    forest, entry = read_forest(disks, history, disk), history.disks[disk]
    unnamed = [name for name in forest.layers.keys() - forest.named(history) - {entry.floor} if "/" not in name]
    top = forest.layers[entry.top]
    size = int(top.header.size) if top.header else top.length
    return len(unnamed) <= _SPARED and sum(_data(disks, name) for name in unnamed) <= max(size // 8, _FRESH)


def _mergeable(disks: Disks, history: History, disk: str) -> tuple[Forest, str, str] | None:
    """An unnamed file and the only file above it, as (forest, lower, upper); what checkpoints share stays as it is."""
    forest = read_forest(disks, history, disk)
    named = forest.named(history)
    for lower in forest.layers if mergeable(disks, forest) else ():
        above = forest.above(lower)
        shared = "/" in lower
        shared = shared or any(disks.path(file).stat().st_nlink > 1 for file in (lower, *above))
        if lower not in named and len(above) == 1 and not shared and not _left_alone(disks, history, lower, above[0]):
            return forest, lower, above[0]
    return None


def _left_alone(disks: Disks, history: History, lower: str, upper: str) -> bool:
    """A large file under an almost empty one the guest is writing to: merged when there is something to merge."""
    live_top = disks.session is not None and upper in (disk.top for disk in history.disks.values())
    return live_top and _data(disks, lower) > _SMALL and _data(disks, upper) <= _FRESH


async def _merge(disks: Disks, history: History, forest: Forest, lower: str, upper: str) -> History:
    """One merge, or, before a large file under the one the guest writes to is written to, a fresh file for the guest.

    A commit of the file being written to could not be told from an unfinished one after a crash.
    """
    history = _inherit(history, lower, upper)
    small = _data(disks, lower) <= max(_data(disks, upper) - 1, _SMALL if disks.session is not None else 0)
    small = small and _can_stream(disks, forest, upper)
    live = await _live_chain(disks, history, forest.disk)
    aside = live is not None and upper not in map(disks.name, live.files)
    if not small and not aside and _same_size(forest, lower, upper):
        if disks.session is not None and upper == history.disks[forest.disk].top:
            return await grow(disks, history, forest.disk)
        intent = Intent("commit", {"disk": forest.disk, "upper": upper, "lower": lower})
        history = save(disks.directory, late.replace(history, intent=intent))
        return await finish_commit(disks, history, intent.arguments)
    save(disks.directory, history)
    await _stream(disks, history, forest, upper, forest.below.get(lower, ""))
    if lower == history.disks[forest.disk].floor:
        entry = late.replace(history.disks[forest.disk], floor=upper, floor_format="qcow2")
        history = save(disks.directory, late.replace(history, disks={**history.disks, forest.disk: entry}))
    return history


def _can_stream(disks: Disks, forest: Forest, into: str) -> bool:
    header = forest.layers[into].header
    return disks.session is None or not (header and header.extended_l2) or streams_subclusters(disks.session.version)


def _inherit(history: History, lower: str, upper: str) -> History:
    """What is merged with a flattened file is one itself; saved with the merge."""
    if not {lower, upper} & set(history.flattened):
        return history
    return late.replace(history, flattened=tuple(sorted({*history.flattened, lower, upper})))


def _same_size(forest: Forest, lower: str, upper: str) -> bool:
    layers = (forest.layers[lower], forest.layers[upper])
    return len({int(layer.header.size) if layer.header else layer.length for layer in layers}) == 1


def _data(disks: Disks, name: str) -> int:
    return disks.path(name).stat().st_blocks * 512


async def _stream(disks: Disks, history: History, forest: Forest, into: str, base: str) -> None:
    """Copy everything between ``into`` and ``base`` into ``into``; with an empty ``base``, all there is.

    Written through, because qemu-img changes the header at the end while tables may still be in its memory alone: killed
    then, it would leave a file that has lost what was copied.
    """
    if disks.session is not None:
        if not _can_stream(disks, forest, into):
            why = "this QEMU can end while it copies into a qcow2 file with subclusters (extended_l2)"
            raise StateError(f"{into} cannot be merged with what is below it now", why=why, fix="stop the machine first")
        by_path = await _open_chain(disks, disks.session, forest, into)
        node = by_path[str(disks.path(into))]
        arguments: dict[str, object] = {"device": node}
        if base:
            arguments |= {"base-node": by_path[str(disks.path(base))], "backing-file": base}
        chain = forest.chain(into)
        amount = sum(_data(disks, one) for one in chain[1 : chain.index(base) if base else None])
        target = Target(node, disks.path(into), amount)
        name = f"stream-{forest.disk}"
        await run_job(disks.session, "block-stream", name, arguments, target=target, progress=disks.progress)
        await close_unused(disks.session, disks.directory)
        return
    named = ["-b", base, "-F", forest.layers[base].format] if base else ["-b", ""]
    argv = [disks.qemu_img, "rebase", "-p", "-t", "writethrough", "-f", "qcow2", *named, into]
    await offline(argv, f"merging into {into}", progress=disks.progress, cwd=disks.directory)


async def _open_chain(disks: Disks, session: Session, forest: Forest, file: str) -> dict[str, str]:
    """Have QEMU open a file and all below it, as far as it has not; its own locks keep every other program out of them."""
    by_path = (await block_graph(session)).nodes(forest.disk)
    below: str | None = None
    for name in reversed(forest.chain(file)):
        path = str(disks.path(name))
        if path not in by_path:
            await open_overlays(
                session, [Opening(disks.path(name), node_of(name), {}, below, encryption(forest.disk, forest.layers[name]))]
            )
            by_path[path] = node_of(name)
        below = by_path[path]
    return by_path


async def finish_commit(disks: Disks, history: History, arguments: Mapping[str, object]) -> History:
    """Copy the upper file down, let whatever named it name the lower one, and drop it; again where it was cut short."""
    disk, upper, lower = (str(arguments[key]) for key in ("disk", "upper", "lower"))
    live = await _live_chain(disks, history, disk)
    read_live = [disks.name(file) for file in live.files] if live else []
    if live is not None and upper in read_live:
        await _commit_live(disks, live, upper, lower)
    elif lower not in read_live and disks.path(upper).exists():
        await _commit_offline(disks, history, disk, upper, lower)
    entry = history.disks[disk]
    if entry.top == upper:
        entry = late.replace(entry, top=lower, format=entry.floor_format if lower == entry.floor else "qcow2")
    shots = tuple(
        late.replace(one, files={**one.files, disk: lower}) if one.files.get(disk) == upper else one
        for one in history.snapshots
    )
    return save(
        disks.directory,
        late.replace(history, disks={**history.disks, disk: entry}, snapshots=shots, intent=None),
    )


async def _commit_live(disks: Disks, live: Attached, upper: str, lower: str) -> None:
    session = disks.session
    assert session is not None
    by_path = (await block_graph(session)).nodes(live.device.removesuffix("-dev"))
    base = by_path[str(disks.path(lower))]
    graph = {"device": live.node, "top-node": by_path[str(disks.path(upper))], "base-node": base}
    name = f"commit-{live.device}"
    target = Target(base, disks.path(lower), _data(disks, upper))
    await run_job(session, "block-commit", name, {**graph, "backing-file": lower}, target=target, progress=disks.progress)
    await close_unused(session, disks.directory)


async def _commit_offline(disks: Disks, history: History, disk: str, upper: str, lower: str) -> None:
    forest = read_forest(disks, history, disk)
    if forest.below.get(upper) == lower:
        argv = [disks.qemu_img, "commit", "-p", "-d", "-f", "qcow2", "-b", lower, upper]
        await offline(argv, f"merging {upper} into {lower}", progress=disks.progress, cwd=disks.directory)
    for name in forest.above(upper):
        argv = [disks.qemu_img, "rebase", "-u", "-f", "qcow2", "-b", lower, "-F", forest.layers[lower].format, name]
        await offline(argv, f"putting {name} on {lower}", progress=disks.progress, cwd=disks.directory)


async def _live_chain(disks: Disks, history: History, disk: str) -> Attached | None:
    if disks.session is None or history.disks[disk].gone:
        return None
    found = (await attached(disks.session)).get(history.disks[disk].device)
    if found is None:
        raise StateError(f"QEMU has no device {history.disks[disk].device} any more", fix="tinamou check")
    return found
