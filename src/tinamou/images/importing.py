"""Images from anywhere made into base images of this host: converted, compared with their source, named after their content.

A sound qcow2 image is not converted where its blocks can be shared with the copy (a reflink: XFS, Btrfs): that takes no time
and no space.

::

    images/NAME/ARCH/import-6f1c…/disk.qcow2     read-only, shared by the overlays of all machines made from it
    images/NAME/ARCH/import-6f1c…/facts.json     what it is; the folder's name begins the file's SHA-256
    images/NAME/ARCH/current                     link to the folder in use
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from tinamou.digest import file_digest
from tinamou.errors import ImageError
from tinamou.facts.image import ImageFacts
from tinamou.images import store
from tinamou.images.inspect import image_files, inspect_image
from tinamou.images.offline import changed, made, read_through
from tinamou.images.part import Part, check_part, options
from tinamou.images.progress import Progress, silent
from tinamou.images.vhdx_log import is_unfinished, played_back
from tinamou.late import asdict, replace
from tinamou.system.closing import IfFailed
from tinamou.system.disk import clone
from tinamou.system.image_locks import written_by_others
from tinamou.system.lock import exclusive
from tinamou.system.loop_thread import in_thread
from tinamou.system.paths import image_dir
from tinamou.system.qcow2 import read_header
from tinamou.units import Size

__all__ = ["convert", "import_image", "imported", "rebase", "refuse_fixed", "refuse_name", "resize"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def imported(name: str, arch: str) -> ImageFacts | None:
    """The image imported under that name for an architecture, None where there is none."""
    current = image_dir() / name / arch / "current"
    with contextlib.suppress(OSError):
        target = os.readlink(current)  # noqa: PTH115
        if target.startswith("import-"):
            return store.described(current.parent / target)
    return None


def refuse_name(name: str) -> None:
    """Raise ImageError for what cannot be an image's name: a folder is called so."""
    if not _NAME.fullmatch(name):
        raise ImageError(f"{name!r} cannot be an image's name", fix="lower-case letters, digits, dot, dash, to 64 letters")


async def import_image(
    path: Path,
    name: str,
    *,
    arch: str = "",
    part: Part | None = None,
    trusted: Sequence[Path] = (),
    like: ImageFacts | None = None,
    settled: Callable[[], Awaitable[None]] | None = None,
    progress: Progress = silent,
) -> ImageFacts:
    """Make a base image of a local file of any format inspection knows; holes stay holes.

    ``arch`` is needed where the image does not tell; ``part`` is where in the file the image lies, if it is not all of it;
    ``trusted`` as for `inspect_image`; ``like`` is an image whose guest has the same agent, ssh server, user and first-boot
    configuration, which no disk tells. A file that somebody writes to is refused. The copy is compared with its source
    before it gets its name, and ``settled`` awaited: it raises where something else is wrong with the source. Raises
    ImageError; nothing is left behind then.
    """
    refuse_name(name)
    if part is not None:
        return await _import_part(path, name, arch, part, like, settled, progress)
    async with _closed(path, image_dir() / name, progress) as whole:
        found = _examined(whole, arch, trusted, like)
        _refuse_used(path)
        with _making(name, found) as work:
            await _copy(found, image_files(whole, trusted=trusted), work / "disk.qcow2", progress)
            return await _filed(found, name, work, settled)


@contextlib.asynccontextmanager
async def _closed(path: Path, folder: Path, progress: Progress) -> AsyncIterator[Path]:
    """The file itself; for one that was not closed, and whose last writes are in its log alone, a copy that has them.

    That lies in a folder beside what is made, under the same name, for the block.
    """
    try:
        unfinished = await asyncio.to_thread(is_unfinished, path)
    except OSError:
        unfinished = False  # whoever opens it next says what is wrong
    if not unfinished:
        yield path
        return
    _refuse_used(path)
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as place:
        progress(f"playing back the log of {path.name}", None)
        copy = Path(place) / path.name
        await asyncio.to_thread(played_back, path, copy)
        yield copy


def _examined(path: Path, arch: str, trusted: Sequence[Path], like: ImageFacts | None) -> ImageFacts:
    found = inspect_image(path, arch=arch, trusted=trusted)
    _refuse_encrypted(found)
    if like is not None:
        found = replace(found, agent=like.agent, seed=like.seed, ssh=like.ssh, user=like.user)
    if not found.arch:
        raise ImageError(f"{path} does not tell for which architecture it is", fix="add --arch x86_64, aarch64 or riscv64")
    return found


@contextlib.contextmanager
def _making(name: str, found: ImageFacts) -> Iterator[Path]:
    """A folder to make an image in, beside those of its name and architecture; whatever is left there is removed."""
    folder = image_dir() / name / found.arch
    folder.mkdir(parents=True, exist_ok=True)
    making = tempfile.TemporaryDirectory(prefix=".building-", dir=folder, ignore_cleanup_errors=True)
    with exclusive(folder / ".lock"), making as work:
        Path(work).chmod(0o755)
        yield Path(work)


async def _import_part(
    path: Path,
    name: str,
    arch: str,
    part: Part,
    like: ImageFacts | None,
    settled: Callable[[], Awaitable[None]] | None,
    progress: Progress,
) -> ImageFacts:
    """The image is copied out of the file first: whatever is asked of it then, is asked of the copy, which becomes it.

    It is written in order (``-m`` has its default), so that the same disk always makes the same file, with the same name.
    """
    parent = image_dir() / name
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=parent) as folder:
        copy = Path(folder) / "disk.qcow2"
        await convert(path, copy, "qcow2", part=part, more=("-m", "8"), progress=progress)
        found = _examined(copy, arch, (), like)
        with _making(name, found) as work:
            copy.replace(work / "disk.qcow2")
            return await _filed(found, name, work, settled)


async def _copy(found: ImageFacts, files: Sequence[str], target: Path, progress: Progress) -> None:
    if await _share(found, target):
        return
    kind = "raw" if found.format == "iso" else found.format
    argv = ["qemu-img", "convert", "-p", "-f", kind, "-O", "qcow2", found.disk, str(target)]
    await made(argv, f"importing {found.name}", files, target, progress=progress)
    compare = ["qemu-img", "compare", "-p", "-f", kind, "-F", "qcow2", found.disk, str(target)]
    await read_through(compare, f"comparing {found.name}", [*files, str(target)], progress=progress)


async def _share(found: ImageFacts, target: Path) -> bool:
    """Have ``target`` share the blocks of a sound qcow2 image that rests on nothing, where the file system can do that."""
    if found.format != "qcow2" or written_by_others(found.disk):
        return False
    header = read_header(found.disk)
    if header.backing_file or header.snapshots or header.dirty or header.encryption:
        return False
    with open(found.disk, "rb") as source, target.open("xb") as copy:  # noqa: ASYNC230, PTH123
        shared = clone(source.fileno(), copy.fileno())
    with contextlib.suppress(ImageError):
        if shared:
            argv = ["qemu-img", "check", "-q", "-f", "qcow2", str(target)]
            await read_through(argv, f"checking {found.name}", [str(target)])
            return True
    target.unlink()  # noqa: ASYNC240
    return False


async def _filed(found: ImageFacts, name: str, work: Path, settled: Callable[[], Awaitable[None]] | None) -> ImageFacts:
    """The image under its name: summed up while others go on, as a large one takes a while."""
    digest = await in_thread(_summed, work / "disk.qcow2")
    if settled is not None:
        await settled()
    return _file(found, name, work, digest)


def _summed(disk: Path) -> str:
    """Its SHA-256, when it is on the host's disk."""
    with disk.open("rb") as file:
        os.fsync(file.fileno())
    return file_digest(disk)


def _file(found: ImageFacts, name: str, work: Path, digest: str) -> ImageFacts:
    folder, disk = work.parent, work / "disk.qcow2"
    facts = replace(found, name=name, disk="disk.qcow2", format="qcow2")
    (work / "facts.json").write_text(json.dumps({**asdict(facts), "sha256": digest}))
    disk.chmod(0o444)
    key = f"import-{digest[:16]}"
    if not (folder / key).exists():
        work.rename(folder / key)
    store.point(folder / "current", key)
    return replace(facts, disk=str(folder / key / "disk.qcow2"))


async def convert(
    source: Path,
    target: Path,
    format: str,
    *,
    part: Part | None = None,
    trusted: Sequence[Path] = (),
    more: Sequence[str] = (),
    progress: Progress = silent,
) -> None:
    """Write an image in another format and compare both. Raises ImageError; a target that is not whole is removed.

    ``part`` and ``trusted`` as for `import_image`; ``more`` are qemu-img's words for a format that is written in order.
    """
    if await asyncio.to_thread(target.exists):
        raise ImageError(f"{target} exists already", fix="remove it, or name another file")
    async with _closed(source, target.parent, progress) as whole:
        _refuse_used(source)
        await _converted(whole, target, format, part, trusted, more, progress)


async def _converted(
    source: Path,
    target: Path,
    format: str,
    part: Part | None,
    trusted: Sequence[Path],
    more: Sequence[str],
    progress: Progress,
) -> None:
    given, files = _named(source, part, trusted)
    force = ["-o", "force_size=on"] if format == "vpc" else []
    argv = ["qemu-img", "convert", "-p", *(more or ["-W"]), *given, "-O", format, *force, str(target)]
    await made(argv, f"converting {source.name}", files, target, progress=progress)
    with IfFailed(target.unlink, missing_ok=True):
        fresh = [options(target, format)] if part else ["-F", format, str(target)]
        compare = ["qemu-img", "compare", "-p", *given, *fresh]
        await read_through(compare, f"comparing {source.name}", [*files, str(target)], progress=progress)


def _refuse_encrypted(found: ImageFacts) -> None:
    """Only ``qemu-img info`` does without the key; check, map, measure, convert and resize ask for it."""
    if found.format == "qcow2" and read_header(found.disk).encryption:
        given = f"driver=qcow2,encrypt.key-secret=key,file.filename={found.disk}"
        fix = f"qemu-img convert --object secret,id=key,file=KEY --image-opts {given} -O qcow2 COPY"
        raise ImageError(f"{found.name} is encrypted", why="without its key nobody reads what is in it", fix=fix)


def _named(source: Path, part: Part | None, trusted: Sequence[Path]) -> tuple[list[str], Sequence[str]]:
    """An image that was examined, in qemu-img's words, and the files it reads through."""
    if part is not None:
        return ["--image-opts", options(source, check_part(source, part), part)], [str(source)]
    found = inspect_image(source, trusted=trusted)
    _refuse_encrypted(found)
    named = ["-f", "raw" if found.format == "iso" else found.format, found.disk]
    return named, image_files(source, trusted=trusted)


async def resize(path: Path, size: Size, *, shrink: bool = False) -> None:
    """Give an image that nobody uses another virtual size, rounded up to whole sectors.

    Raises ImageError for a smaller one unless ``shrink``, and for a format that is never given another size.
    """
    found, size = inspect_image(path), size.whole
    _refuse_encrypted(found)
    refuse_fixed(path, found.format)
    _refuse_used(path)
    if size < found.size and not shrink:
        fix = "shrink its file systems first, then pass --shrink"
        raise ImageError(f"{path} is {found.size} large; {size} would cut off its end", fix=fix)
    extra = ["--shrink"] if size < found.size else []
    argv = ["qemu-img", "resize", "-f", found.format, *extra, found.disk, str(int(size))]
    await changed(argv, f"resizing {path.name}", image_files(path), found.disk)


def refuse_fixed(path: Path, format: str) -> None:
    """Raises ImageError for a format that qemu-img gives no other size."""
    if format not in ("raw", "qcow2"):
        fix = f"convert it first: tinamou image convert {path} {path.stem}.qcow2"
        raise ImageError(f"{path} cannot be given another size", why=f"its format is {format}", fix=fix)


async def rebase(path: Path, base: Path | None, *, progress: Progress = silent) -> None:
    """Put an overlay on another base, or on none; what it reads as stays. Raises ImageError."""
    trusted = [base.parent] if base else []
    found = inspect_image(path, trusted=trusted)
    _refuse_used(path)
    below = inspect_image(base) if base else None
    files = [*image_files(path, trusted=trusted), *(image_files(base) if base else ())]
    named = ["-b", below.disk, "-F", below.format] if below else ["-b", ""]
    argv = ["qemu-img", "rebase", "-p", "-t", "writethrough", "-f", "qcow2", *named, found.disk]
    what = f"putting {path.name} on {base.name if base else 'its own'}"
    await changed(argv, what, files, found.disk, progress=progress)


def _refuse_used(path: Path) -> None:
    if written_by_others(path):
        raise ImageError(
            f"{path} is in use",
            why="a machine or a tool writes to it",
            fix="stop that first; of a paused machine: tinamou commit",
        )
