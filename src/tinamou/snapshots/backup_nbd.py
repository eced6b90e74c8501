"""Backups whose data go to NBD exports, one for each disk: an export holds the newest state, the shelf says what it must be.

A full backup writes everything, zeros too. An incremental one writes the overlays frozen since the last, lowest first. What
was written is read back from the server and compared before the backup counts; while it is written, the shelf has none.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tinamou import late
from tinamou.errors import ImageError, Problem, StateError
from tinamou.images.chain import Layer
from tinamou.images.offline import offline
from tinamou.images.progress import Progress, silent
from tinamou.snapshots.backup_shelf import Backup, Shelf, keep_extras, old_base, refuse_encrypted, save_shelf, sums_of
from tinamou.snapshots.history import History, Snapshot
from tinamou.snapshots.layers import read_forest
from tinamou.snapshots.machine_disks import Disks
from tinamou.system.exec import CommandError
from tinamou.system.exec_async import run_async

__all__ = ["check_target", "copy_to_nbd", "nbd_source", "verify_nbd"]

_PORT = 10809
_PIECE = 64
"""MiB that are read at a time to be summed."""


def check_target(target: str, disks: int) -> None:
    """Whether a URL can be the target of so many disks. Raises StateError."""
    problems = []
    url = urlsplit(target)
    if url.scheme not in ("nbd", "nbd+unix"):
        problems.append(Problem("--nbd", target, "no NBD URL", "nbd://HOST:PORT/EXPORT, or nbd+unix:///EXPORT?socket=PATH"))
    elif url.scheme == "nbd" and not url.hostname:
        problems.append(Problem("--nbd", target, "it names no host", "nbd://HOST:PORT/EXPORT"))
    elif url.scheme == "nbd+unix" and not parse_qs(url.query).get("socket"):
        problems.append(Problem("--nbd", target, "it names no socket", "nbd+unix:///EXPORT?socket=PATH"))
    if disks > 1 and "{disk}" not in target:
        reason = f"the machine has {disks} disks, each needs an export of its own"
        problems.append(Problem("--nbd", target, reason, "write {disk} where the export is named: nbd://HOST/{disk}"))
    if problems:
        raise StateError("the backup has no place to go", problems=problems)


def nbd_source(url: str, size: int) -> str:
    """The first ``size`` bytes of an export, as qemu-img takes a file; a server may offer more than the disk has."""
    parts = urlsplit(url)
    server: dict[str, str] = {"type": "inet", "host": parts.hostname or "", "port": str(parts.port or _PORT)}
    if parts.scheme == "nbd+unix":
        server = {"type": "unix", "path": parse_qs(parts.query)["socket"][0]}
    file = {"driver": "nbd", "server": server, "export": unquote(parts.path).removeprefix("/")}
    return "json:" + json.dumps({"driver": "raw", "size": size, "file": file})


async def copy_to_nbd(
    disks: Disks,
    history: History,
    shot: Snapshot,
    shelf: Shelf,
    record: Mapping[str, object],
    target: str,
    *,
    full: bool = False,
    progress: Progress = silent,
) -> Shelf:
    """Bring the exports to the state of a snapshot; incremental when they hold one that every disk still rests on.

    Raises ImageError when the server cannot be reached, is too small, or does not read as what was written; StateError.
    """
    check_target(target, len(shot.files))
    refuse_encrypted(disks, history, shot)
    urls = {disk: target.replace("{disk}", disk) for disk in shot.files}
    last = None if full else old_base(disks, history, shot, shelf)
    if last and dict(last.tops) != urls:
        last = None
    layers = {disk: read_forest(disks, history, disk).layers for disk in shot.files}
    sizes = {disk: await _fitting(disks, disk, layers[disk][file], urls[disk]) for disk, file in shot.files.items()}
    number = max((one.number for one in shelf.backups), default=0) + 1
    folder = shelf.folder / f"{number:04}"
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    keep_extras(disks, shot, folder)
    empty = save_shelf(late.replace(shelf, backups=()))
    remote = {}
    for disk, file in shot.files.items():
        for name, below in _steps(disks, history, disk, file, last):
            based = ["-B", below, "-F", layers[disk][below].format] if below else []
            kinds = ["-f", layers[disk][name].format, "-O", "raw"]
            argv = [disks.qemu_img, "convert", "-n", "-p", "-U", "-W", *based, *kinds, name, urls[disk]]
            await offline(argv, f"copying {name} to {urls[disk]}", progress=progress, cwd=disks.directory)
        remote[urls[disk]] = await _compared(disks, layers[disk][file], urls[disk], sizes[disk], progress)
    backup = Backup(
        number=number,
        kind="incremental" if last else "full",
        created=shot.created,
        snapshot=shot.number,
        parent=0,
        tops=urls,
        sums=await asyncio.to_thread(sums_of, shelf.folder, folder),
        record=record,
        size=sum(sizes.values()),
        quiesced=shot.quiesced,
        remote=remote,
    )
    after = save_shelf(late.replace(empty, backups=(backup,)))
    for old in shelf.backups:
        shutil.rmtree(shelf.folder / f"{old.number:04}", ignore_errors=True)
    return after


def _steps(disks: Disks, history: History, disk: str, file: str, last: Backup | None) -> list[tuple[str, str]]:
    """The files to copy in order, each with the one below it that is there already; nothing below: all it reads as."""
    if last is None:
        return [(file, "")]
    old = history.snapshot(str(last.snapshot)).files[disk]
    chain = read_forest(disks, history, disk).chain(file)
    return list(itertools.pairwise(chain[: chain.index(old) + 1]))[::-1]


async def _fitting(disks: Disks, disk: str, layer: Layer, url: str) -> int:
    """The disk's size in bytes. Raises ImageError when the server cannot be reached or offers less."""
    size = int(layer.header.size) if layer.header else layer.length
    try:
        told = await run_async([disks.qemu_img, "info", "--output=json", "-f", "raw", url])
    except CommandError as error:
        why = (error.stderr.strip().splitlines() or [str(error)])[-1]
        raise ImageError(f"{url} cannot be opened", why=why, fix="is the server up, and does it offer it?") from error
    offered = int(json.loads(told)["virtual-size"])
    if offered < size:
        raise ImageError(f"{url} is too small for {disk}", why=f"it has {offered} bytes, the disk {size}")
    return size


async def _compared(disks: Disks, layer: Layer, url: str, size: int, progress: Progress) -> dict[str, object]:
    """What the export holds. Raises ImageError when that is not what the disk reads as."""
    here = await _sum(disks.qemu_img, ["-f", layer.format, f"if={layer.path}"], size, progress)
    there = await _sum(disks.qemu_img, [f"if={nbd_source(url, size)}"], size, progress)
    if here != there:
        raise ImageError(f"{url} does not hold what was written to it", fix="look at the server, then back up again, --full")
    return {"size": size, "sha256": there}


async def _sum(qemu_img: str, source: list[str], size: int, progress: Progress) -> str:
    """SHA-256 of what an image reads as, piece by piece in memory: never in a file of this host."""
    digest = hashlib.sha256()
    for start in range(0, size, _PIECE << 20):
        descriptor = os.memfd_create("piece", os.MFD_CLOEXEC)
        try:
            into = f"of=/proc/{os.getpid()}/fd/{descriptor}"
            at = [f"skip={start >> 20}", f"count={_PIECE}", "bs=1M"]
            await run_async([qemu_img, "dd", "-U", *source, "-O", "raw", into, *at])
            digest.update(os.pread(descriptor, _PIECE << 20, 0))
        except CommandError as error:
            raise ImageError("what was copied cannot be read", why=error.stderr.strip() or str(error)) from error
        finally:
            os.close(descriptor)
        progress("comparing", start / size)
    return digest.hexdigest()


async def verify_nbd(remote: Mapping[str, Mapping[str, Any]], *, qemu_img: str = "qemu-img") -> None:
    """Read every export and compare. Raises ImageError naming the one that is damaged or cannot be reached."""
    for url, told in remote.items():
        try:
            found = await _sum(qemu_img, [f"if={nbd_source(url, told['size'])}"], told["size"], silent)
        except ImageError as error:
            raise ImageError(f"the backup in {url} cannot be read", why=error.why, fix="is the server up?") from error
        if found != told["sha256"]:
            fix = "restore another backup, or make a new full one: tinamou backup create --full"
            raise ImageError(f"the backup in {url} is damaged: it is not what was written", fix=fix)
