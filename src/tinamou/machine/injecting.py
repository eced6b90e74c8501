"""Virtio's drivers put into an installed Windows: in a throw-away machine, into a layer over its disk, never into the disk.

The disk and the disc of drivers are read by a kernel and programs that nobody here depends on: ntfs-3g and hivex run in a
guest without a network, which is gone afterwards. What it has written is read again here before it gets its name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tinamou.digest import sha256
from tinamou.errors import GuestError, ImageError
from tinamou.facts.image import ImageFacts
from tinamou.facts.windows import WindowsFacts
from tinamou.guest import copy
from tinamou.images import layers, store, windows_mender
from tinamou.images.blocks import Unreadable
from tinamou.images.hive import HiveError
from tinamou.images.importing import import_image, refuse_name
from tinamou.images.inspect import disk_of, inspect_image
from tinamou.images.progress import Progress, silent
from tinamou.images.resolve import is_path, resolve
from tinamou.images.windows_inside import existing, lacking, search
from tinamou.late import dataclass, replace
from tinamou.machine.facade import AsyncMachine
from tinamou.machine.gather import native_arch
from tinamou.parts.windows_drivers import Injection, decide, hive_commands, refuse
from tinamou.system.lock import exclusive
from tinamou.system.loop_thread import in_thread
from tinamou.system.qcow2 import write_overlay

__all__ = ["Injected", "inject"]

_VERSION = 1
"""Raised whenever the same Windows and the same disc are given something else."""
_INSIDE = "/root/drivers"
_SECONDS = 900.0
_ARCH = "x86_64"


@dataclass(frozen=True)
class Injected:
    """The image, the Windows in it as it was, and what was done to it; None where that had been done before."""

    image: ImageFacts
    windows: WindowsFacts
    done: Injection | None


async def inject(source: str, name: str, drivers: Path, *, progress: Progress = silent) -> Injected:
    """Make an image of an installed Windows that starts from virtio, with the drivers of the disc virtio-win.iso.

    ``source`` is an image by its name, or a file of any format inspection knows, which is imported and stays as it is.
    Raises ImageError for a disk without a Windows, one that may not be changed now, and a disc without its drivers; the name
    stands for what it stood for before then.
    """
    refuse_name(name)
    disc = await in_thread(_disc, drivers)
    found = await in_thread(_windows, source)
    refuse(found)
    folder = layers.folder_of(name, _ARCH)
    with _kept(folder):
        if is_path(source):
            base = await import_image(Path(source).expanduser(), name, arch=_ARCH, progress=progress)  # noqa: ASYNC240
        else:
            base = await in_thread(resolve, source, _ARCH, build=False)
        with exclusive(folder / ".lock", lambda: progress(f"another process makes {name}: waiting for it", None)):
            key = _key(base.disk, str(disc))
            if layers.layer(name, _ARCH, key) is not None:
                return Injected(layers.point(name, _ARCH, key), found, None)
            done = await _make(name, key, base, disc, found, progress)
            return Injected(layers.point(name, _ARCH, key), found, done)


def _disc(path: Path) -> Path:
    facts = inspect_image(path.expanduser())
    if facts.format != "iso":
        fix = "name the file virtio-win.iso"
        raise ImageError(f"{path} is no disc of drivers", why=f"it is {facts.format}, not an optical disc", fix=fix)
    return Path(facts.disk)


def _windows(source: str) -> WindowsFacts:
    image = resolve(source, _ARCH, build=False)
    if not image.disk or image.format == "iso":
        why = "it is an optical disc" if image.disk else "its guest lives in memory"
        fix = "name the disk of an installed one; the setup takes drivers from windows.drivers"
        raise ImageError(f"no Windows is installed on {source}", why=why, fix=fix)
    if not image.built:
        raise ImageError(f"the image {source} is not here", fix=f"tinamou image pull {source}")
    try:
        found, kept = search(disk_of(image.disk))
    except Unreadable as error:
        found, kept = None, str(error)
    if found is None:
        why = kept or "there is no volume with the registry of one"
        fix = (
            "BitLocker? decrypt it where it ran before: manage-bde -off C:" if not kept else "take a sound copy of the disk"
        )
        raise ImageError(f"no Windows was found on {source}", why=why, fix=fix)
    return found


def _key(base: str, disc: str) -> str:
    """A name for what goes in: the base, which never changes, and the disc as it is now."""
    seen = os.stat(disc)  # noqa: PTH116
    words = f"{_VERSION}\0{os.path.realpath(base)}\0{seen.st_size}\0{seen.st_mtime_ns}\0{seen.st_ino}"
    return sha256(words.encode()).hexdigest()[:16]


@contextlib.contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """When the block fails, the image is again what it was before, or none; what was imported for it is gone."""
    link, before = folder / "current", {one.name for one in folder.glob("*")} if folder.is_dir() else set[str]()
    target = os.readlink(link) if link.is_symlink() else ""  # noqa: PTH115
    try:
        yield
    except BaseException:
        if target:
            store.point(link, target)
        else:
            link.unlink(missing_ok=True)
        for one in folder.glob("import-*"):
            if one.name not in before:
                shutil.rmtree(one, ignore_errors=True)
        raise


async def _make(name: str, key: str, base: ImageFacts, disc: Path, found: WindowsFacts, progress: Progress) -> Injection:
    like = replace(base, windows=f"{found.name} (build {found.build})")
    with tempfile.TemporaryDirectory(prefix="tinamou-drivers-") as told, _filed(name, key, like) as (layer, drivers):
        write_overlay(layer, int(base.size), base.disk, base.format, mode=0o644)
        done = await _carried_out(layer, disc, found, Path(told), progress)
        if wrong := await in_thread(_lacking, layer, found.start, done):
            why = f"read again, the registry has not: {', '.join(wrong[:3])}"
            raise ImageError(f"{found.name} was not given its drivers", why=why, fix="this is a fault of tinamou: report it")
        drivers += done.drivers
    return done


@contextlib.contextmanager
def _filed(name: str, key: str, like: ImageFacts) -> Iterator[tuple[Path, list[str]]]:
    """The path of the layer, and the list of drivers that it has once the block has ended."""
    drivers = list[str]()
    with layers.filed(name, key, like, lambda facts: replace(facts, drivers=tuple(drivers))) as layer:
        yield layer, drivers


async def _carried_out(layer: Path, disc: Path, found: WindowsFacts, told: Path, progress: Progress) -> Injection:
    """In the machine: what the disc has is asked, what follows from it is decided here, and done there."""
    disks = [{"path": str(layer), "format": "qcow2"}, {"path": str(disc), "format": "raw", "readonly": True}]
    progress("starting a machine with the tools of NTFS and hivex", None)
    machine = AsyncMachine(
        windows_mender.NAME, arch=native_arch(), memory="1G", net=[], disk=disks, timeout=_SECONDS, progress=progress
    )
    try:
        async with machine:
            agent = await machine.connected.settled_agent()
            (told / "run.sh").write_text(windows_mender.script())
            await copy.into_guest(agent, f"{told}/.", _INSIDE, directory=machine.record.directory)
            listed = await machine.run(["sh", f"{_INSIDE}/run.sh", "list"], timeout=_SECONDS)
            done = decide(found, listed.stdout.decode("utf-8", "replace").splitlines())
            progress(f"putting {', '.join(done.drivers)} into {found.name}", None)
            await in_thread(_write, told, done, await in_thread(_existing, layer, found.start, done))
            await copy.into_guest(agent, f"{told}/.", _INSIDE, directory=machine.record.directory)
            await machine.run(["sh", f"{_INSIDE}/run.sh", "put", str(found.start), _INSIDE], timeout=_SECONDS)
            await machine.stop()
    except GuestError as error:
        said = error.evidence.get("it said", "").strip().splitlines()
        why = (said[-1] if said else "") or error.why or error.what
        raise ImageError(f"{found.name} was not given its drivers", why=why[:300], fix=_fix(why, found)) from error
    return done


def _fix(why: str, found: WindowsFacts) -> str:
    return replace(found, unfit="").fix if "volume" in why else ""


def _existing(layer: Path, start: int, done: Injection) -> dict[str, dict[str, tuple[int, bytes]]]:
    try:
        return existing(disk_of(layer), start, done.edits)
    except (Unreadable, HiveError) as error:
        raise ImageError("the registry cannot be changed", why=str(error)) from error


def _lacking(layer: Path, start: int, done: Injection) -> list[str]:
    try:
        return lacking(disk_of(layer), start, done.edits)
    except (Unreadable, HiveError) as error:
        return [str(error)]


def _write(told: Path, done: Injection, there: Mapping[str, Mapping[str, tuple[int, bytes]]]) -> None:
    """What the script reads."""
    (told / "copies").write_text("".join(f"{one.source}\t{one.target}\n" for one in done.copies))
    names = {f"text-{number}": target for number, target in enumerate(done.texts)}
    (told / "texts").write_text("".join(f"{name}\t{target}\n" for name, target in names.items()))
    for name, target in names.items():
        (told / name).write_bytes(done.texts[target].encode())
    for hive in ("SYSTEM", "SOFTWARE"):
        (told / f"{hive}.hivexsh").write_text(hive_commands(done.edits, hive, there))
