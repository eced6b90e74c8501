"""The files a draft names, looked at on this host, and their import into the store: only here files are opened."""

from __future__ import annotations

import contextlib
import os
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from pathlib import Path

from tinamou.convert.assemble import Converted, Placed, Seen
from tinamou.convert.result import Disk, Draft
from tinamou.errors import ImageError, SpecError, StateError
from tinamou.images.progress import Progress, silent
from tinamou.system.plain_file import read_given

__all__ = ["absolute", "companion", "description", "import_disks", "look", "read_source"]

_LARGEST = 4 << 20
_BACKUPS = (b"VMA\0", b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"\x89LZO")
"""How a backup of Proxmox begins, or what it may be packed in."""
_PATHS = ("boot.kernel", "boot.initrd")
_AT_ONCE = 3
"""Disks copied at once: each takes a processor and 16 MiB, and an import no more than 100 MiB in all."""
_DESCRIPTIONS = ("config.plist", "config.pvs")


def description(path: Path) -> Path:
    """The description in a folder that is a machine of UTM, Parallels or VMware; what is no folder as it is.

    Raises SpecError for a folder with none in it, and with several.
    """
    if not os.path.isdir(path):  # noqa: PTH112
        return path
    names = [name for name in _DESCRIPTIONS if os.path.isfile(f"{path}/{name}")]  # noqa: PTH113
    with contextlib.suppress(OSError):
        names += sorted(one.name for one in path.glob("*.vmx"))
    if len(names) != 1:
        why = f"it has {', '.join(names[:5])}" if names else f"it has neither {' nor '.join((*_DESCRIPTIONS, '*.vmx'))}"
        raise SpecError(f"{path} is not the folder of one machine", why=why, fix="name the description itself")
    return path / names[0]


def read_source(path: Path, *, later: bool = False) -> tuple[str, Draft | None]:
    """The text of a source; or the draft of an archive. Raises SpecError for what cannot be read or is no text.

    ``later``: what an archive vouches for is left to be compared, by the draft's ``vouched``.
    """
    data = read_given(path, _LARGEST)
    from tinamou.convert import vmcx

    if data.startswith(_BACKUPS):
        from tinamou.convert import vma

        if vma.is_backup(path):
            return "", vma.read(path)
    if (data[257:262] == b"ustar" or data.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd"))) and (
        draft := _archived(path, later)
    ):
        return "", draft
    if vmcx.is_store(data):
        from tinamou.convert import hyperv

        return "", hyperv.read_store(data)
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    if len(data) > _LARGEST or (b"\0" in data and not wide):
        why = "it is no text: an image itself is named in a machine file, or imported"
        raise SpecError(
            f"{path} describes no machine", why=why, fix=f"tinamou run {path}, or tinamou image import {path} NAME"
        )
    return data.decode("utf-16", "replace") if wide else data.removeprefix(BOM_UTF8).decode("utf-8", "replace"), None


def _archived(path: Path, later: bool) -> Draft | None:
    """The machine in an archive; None where it is none."""
    from tinamou.convert import box, ova, xva

    if not box.is_box(path):
        return None
    if xva.is_export(path):
        return xva.read(path)
    return ova.read(path, later=later) if ova.is_appliance(path) else box.read(path)


def companion(folder: Path) -> Callable[[str], str]:
    """The text of a file that belongs to a source: beside it, else of this host's Proxmox; empty where there is none."""

    def text(name: str) -> str:
        for place in (folder / name, Path("/etc/pve") / name):
            with contextlib.suppress(OSError), place.open("rb") as file:
                return file.read(_LARGEST).decode("utf-8", "replace")
        return ""

    return text


def absolute(draft: Draft, folder: Path) -> None:
    """Make paths absolute that are relative to the folder of the source: the machine file may lie elsewhere."""
    for field in _PATHS:
        if (name := draft.get(field)) and "$" not in name:
            draft.put(field, str(path := _path(folder, name)))
            if not os.path.exists(path):  # noqa: PTH110
                draft.check(field, name, "this file is not here", "put it there, or name another")
    for share in draft.machine.get("share", []):
        share["path"] = str(_path(folder, share["path"]))


def _path(folder: Path, name: str) -> Path:
    """A file a source names, links followed; `Path` would raise for a loop of links, a long name, an unknown ``~user``."""
    if "\0" in name:
        raise ImageError(f"{name!r} is no name of a file", why="it has a zero byte in it")
    return Path(os.path.realpath(os.path.join(folder, os.path.expanduser(name))))  # noqa: PTH111, PTH118


def look(draft: Draft, folder: Path, trusted: Sequence[Path] = ()) -> dict[str, Seen]:
    """What is known of each disk's file. Raises ImageError for one a source from elsewhere may not name."""
    seen: dict[str, Seen] = {}
    for disk in list(draft.disks):
        if draft.confined and disk.cdrom and disk.file and disk.part is None and not _inside(disk, folder, trusted):
            reason = "a disc that is not here, or outside the folder of the description: the drive is empty"
            draft.check(disk.where, disk.file, reason, "tinamou disk plugs one in; --trust names its folder")
            draft.disks.remove(disk)
        elif disk.file and disk.part is None:
            seen[disk.file] = _seen(draft, disk, folder, trusted)
    return seen


def _seen(draft: Draft, disk: Disk, folder: Path, trusted: Sequence[Path]) -> Seen:
    where = _path(folder, disk.file)
    if draft.confined:
        _refuse_outside(draft, disk, folder, where, trusted)
    if not os.path.exists(where):  # noqa: PTH110
        if not disk.size:
            draft.check(disk.where, disk.file, f"{where} is not here", "put it there, or name another; plan and run need it")
        return Seen(str(where), exists=False)
    from tinamou.images.foreign import UnfinishedError
    from tinamou.images.inspect import inspect_image

    try:
        found = inspect_image(where, trusted=trusted)
    except UnfinishedError as error:
        draft.check(
            disk.where, disk.file, f"it was not closed: {error.why}", "--import plays that back into the copy it makes"
        )
        return Seen(str(where), True, "vhdx")
    except ImageError as error:
        if draft.confined:
            raise
        draft.check(disk.where, disk.file, f"{error.what}{': ' if error.why else ''}{error.why}", error.fix)
        return Seen(str(where))
    if disk.format == "raw" and found.format not in ("raw", "iso"):
        raise _headed(disk.file, found.format)
    return Seen(str(where), True, found.format, found.boots)


def _headed(name: str, kind: str) -> ImageError:
    why = "a guest can write such a header into its raw disk, to have other files opened at its next start"
    fix = f"say format={kind} in the source if that is what it is"
    return ImageError(f"{name} is said to be raw and begins like {kind}", why=why, fix=fix)


def _inside(disk: Disk, folder: Path, trusted: Sequence[Path]) -> bool:
    where = _path(folder, disk.file)
    try:
        there = where.exists()
    except OSError:  # a name no file can have
        return False
    return there and any(where.is_relative_to(root.resolve()) for root in (folder, *trusted))


def _refuse_outside(draft: Draft, disk: Disk, folder: Path, where: Path, trusted: Sequence[Path]) -> None:
    if any(where.is_relative_to(root.resolve()) for root in (folder, *trusted)):
        return
    raise ImageError(
        f"{draft.source} names a disk outside its folder: {disk.file}",
        why="a description from elsewhere could name any file of this host, and the guest could read it",
        fix=f"put it beside the description, or allow its folder: --trust {where.parent}",
    )


async def import_disks(
    converted: Converted, name: str, beside: Path, *, arch: str, trusted: Sequence[Path] = (), progress: Progress = silent
) -> None:
    """Make the machine's own copies: its image in tinamou's store, every other disk a qcow2 file in the folder ``beside``.

    ``arch`` is for an image that does not tell. The fields of the machine name the copies then. Raises ImageError.
    """
    import asyncio
    import tempfile

    from tinamou.images.resolve import names

    hard = [placed for placed in converted.disks if not placed.disk.cdrom]
    if name in names():
        raise StateError(f"{name} is the name of a guest tinamou builds", fix="give the machine another: --name NAME")
    targets = {
        placed.field: beside / f"{name}-disk{_number(placed) + 1}.qcow2" for placed in hard if placed.field != "image"
    }
    for target in targets.values():
        if await asyncio.to_thread(target.exists):
            raise StateError(f"{target} exists already", fix="remove it, or give the machine another name: --name NAME")
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=beside) as folder:
        await asyncio.to_thread(_unpack, hard, Path(folder))
        await _import(converted, name, hard, targets, arch=arch, trusted=trusted, progress=progress)


def _unpack(hard: Sequence[Placed], folder: Path) -> None:
    """What lies packed in a backup or a box, as files in a folder, in one pass through it."""
    from tinamou.convert import box, vma, xva
    from tinamou.images.inspect import inspect_image

    packed = [placed.disk for placed in hard if placed.disk.member]
    for source in {disk.file for disk in packed}:
        path = Path(source)
        reader = vma if vma.is_backup(path) else xva if xva.is_export(path) else box
        found = reader.unpack(path, folder, {disk.member for disk in packed})
        for disk in packed:
            path = found[disk.member]
            raw = reader is not box or disk.member == "disk.raw" or disk.format == "raw"
            if raw and (kind := inspect_image(path).format) not in ("raw", "iso"):
                raise _headed(disk.where, kind)
            disk.file = str(path)


async def _import(
    converted: Converted,
    name: str,
    hard: Sequence[Placed],
    targets: dict[str, Path],
    *,
    arch: str,
    trusted: Sequence[Path],
    progress: Progress,
) -> None:
    """All disks, several at once; where one fails, no other's copy is left beside the machine file.

    What an archive vouches for is compared meanwhile. Its word comes before that of whoever fails on what is damaged, and
    before the image has its name.
    """
    import asyncio

    from tinamou.images.importing import convert, import_image
    from tinamou.system.loop_thread import ended, in_thread

    sound = asyncio.ensure_future(in_thread(converted.vouched or _nothing))
    free, told = asyncio.Semaphore(min(_AT_ONCE, os.cpu_count() or 1)), _Together(progress, 2 * len(hard))
    arch, written = converted.machine.get("arch", arch), list[Path]()

    async def copy(placed: Placed) -> None:
        part, own = None if placed.disk.member else placed.disk.part, placed.disk.file if placed.disk.part else ""
        async with free:
            if placed.field == "image":
                source, tell = Path(own or converted.machine["image"]), told.of(placed)
                settled = lambda: asyncio.shield(sound)  # noqa: E731
                await import_image(source, name, arch=arch, part=part, trusted=trusted, settled=settled, progress=tell)
                converted.machine["image"] = name
                return
            table = converted.machine["disk"][_number(placed)]
            source, target = Path(own or table["path"]), targets[placed.field]
            await convert(source, target, "qcow2", part=part, trusted=trusted, progress=told.of(placed))
            written.append(target)
            table["path"] = str(target)
            table.pop("format", None)

    works = [asyncio.ensure_future(copy(placed)) for placed in hard]
    try:
        await asyncio.gather(sound, *works)
    except BaseException as error:
        for work in works:
            work.cancel()
        for work in works:
            await ended(work)
        for target in written:
            target.unlink(missing_ok=True)
        if isinstance(error, ImageError):
            await sound
        raise
    finally:
        sound.cancel()
        await ended(sound)


def _nothing() -> None:
    """What is compared of a source that vouches for nothing."""


class _Together:
    """The progress of several disks, each converted and compared, as one."""

    def __init__(self, progress: Progress, steps: int) -> None:
        self._progress, self._steps = progress, steps
        self._done = dict[tuple[str, str], float]()

    def of(self, placed: Placed) -> Progress:
        """What one disk tells it."""

        def tell(text: str, fraction: float | None) -> None:
            self._done[placed.field, text] = fraction or 0.0
            self._progress(text, min(1.0, sum(self._done.values()) / self._steps))

        return tell


def _number(placed: Placed) -> int:
    """Which ``[[disk]]`` it is, from 0."""
    return int(placed.field.removeprefix("disk[").partition("]")[0])
