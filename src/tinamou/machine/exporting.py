"""A whole machine written to one file: its description, its disks, its firmware's variables, its TPM, what it boots from."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tinamou import late
from tinamou.errors import PrepareError, StateError
from tinamou.facts import ImageFacts, files
from tinamou.images.offline import made
from tinamou.images.progress import Progress, silent
from tinamou.machine import persistent
from tinamou.machine.cloning import frozen_disks
from tinamou.machine.disks import opened
from tinamou.machine.turns import turn
from tinamou.parts.disk import numbered
from tinamou.snapshots import extras
from tinamou.snapshots.backup_shelf import refuse_encrypted
from tinamou.snapshots.history import History
from tinamou.snapshots.layers import read_forest
from tinamou.snapshots.machine_disks import Disks
from tinamou.snapshots.packed import Writer
from tinamou.spec import dump_spec, load_spec
from tinamou.state import machines
from tinamou.state.folder import image_of
from tinamou.state.record import Record
from tinamou.system.closing import Closing
from tinamou.system.exec import find_tool
from tinamou.system.loop_thread import in_thread
from tinamou.system.new_file import new_file
from tinamou.system.zstd import compressing
from tinamou.version import __version__

__all__ = ["BOOTS", "FORMAT", "MANIFEST", "export", "small"]

MANIFEST = "machine.json"
FORMAT = 1
BOOTS = ("kernel", "fast_kernel", "initrd")
"""The files of an image that boots without a boot loader, by the field of `ImageFacts` that names each."""

_STAGING = f"export{files.STAGING}"


async def export(name: str, target: Path | None, *, force: bool = False, progress: Progress = silent) -> int:
    """Write a machine, running or off, to a new file, or to stdout where there is none; the bytes written.

    ``force`` replaces a regular file that is there. Its disks are flattened, one after another, and the running guest's are
    as after a power cut. Raises StateError, ImageError, PrepareError, OSError; there is no file then.
    """
    async with turn(machines.find(name), "export") as record:
        persistent.refuse(record, "exported or copied", "it would be missing there")
        staging = record.path / _STAGING
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        try:
            with _compressed(target, record, force=force) as out:
                await _written(record, Writer(out), staging, progress)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return os.path.getsize(target) if target else 0  # noqa: PTH202, ASYNC240


async def _written(record: Record, writer: Writer, staging: Path, progress: Progress) -> None:
    image, spec = image_of(record), load_spec(record.next_spec)
    if not image.disk and not spec.disk:
        await in_thread(_begin, record, writer, {}, record.path)
        await in_thread(writer.close)
        return
    async with opened(record, "export", progress=progress) as (disks, history), frozen_disks(record, disks, history) as shot:
        refuse_encrypted(disks, history, shot)
        kept = extras.folder(disks, shot.number)
        sizes = {disk: _size(disks, history, disk, file) for disk, file in shot.files.items()}
        await in_thread(_begin, record, writer, sizes, kept if kept.is_dir() else record.path)
        for disk, file in shot.files.items():
            layer = read_forest(disks, history, disk).layers[file]
            flat = staging / f"{disk}.qcow2"
            argv = [disks.qemu_img, "convert", "-p", "-U", "-f", layer.format, "-O", "qcow2", layer.path, str(flat)]
            reads = read_forest(disks, history, disk).files(file)
            await made(argv, f"copying {disk}", reads, flat, mode=0o600, progress=progress)
            await in_thread(_add, writer, flat.name, flat, progress)
            flat.unlink()
        await in_thread(writer.close)


def _size(disks: Disks, history: History, disk: str, file: str) -> int:
    layer = read_forest(disks, history, disk).layers[file]
    return int(layer.header.size) if layer.header else layer.length


def _begin(record: Record, writer: Writer, disks: Mapping[str, int], beside: Path, without: Collection[str] = ()) -> None:
    """What stands before the disks: the manifest, and all small files, each of them owned by this machine or this user.

    ``without`` are those of `BOOTS` that are left out.
    """
    image = image_of(record)
    text = json.dumps(_manifest(record, image, disks), indent=1).encode()
    writer.add(MANIFEST, len(text), io.BytesIO(text))
    for field in BOOTS:
        if field not in without and (path := getattr(image, field)):
            _add(writer, field, Path(path))
    staging = record.path / _STAGING
    owners = extras.owners_of(record.uid)
    extras.copy_files(record.path, staging, ["id_ed25519", "id_ed25519.pub"], owners)
    extras.copy_files(beside, staging, [files.UEFI_VARS], owners)
    if (beside / "tpm").is_dir():
        extras.copy_tpm(beside, staging, owners)
    for path in sorted(one for one in staging.rglob("*") if one.is_file()):
        _add(writer, path.name, path)


def small(record: Record, disks: Mapping[str, int], without: Collection[str]) -> bytes:
    """All of a machine but its disks, of which the sizes in bytes are told, and the files of `BOOTS` in ``without``.

    As `packed`. Raises StateError, OSError.
    """
    staging, whole = record.path / _STAGING, io.BytesIO()
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)
    try:
        writer = Writer(whole)
        _begin(record, writer, disks, record.path, without)
        writer.close()
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return whole.getvalue()


def _add(writer: Writer, name: str, path: Path, progress: Progress = silent) -> None:
    with path.open("rb") as file:
        writer.add(name, os.fstat(file.fileno()).st_size, file, progress)


def _manifest(record: Record, image: ImageFacts, disks: Mapping[str, int]) -> dict[str, Any]:
    spec = load_spec(record.next_spec)
    first = 1 if image.disk else 0
    placed = tuple(late.replace(one, number=number) for number, one in numbered(spec.disk, first))
    return {
        "format": FORMAT,
        "tinamou": __version__,
        "name": record.name,
        "former": record.former,
        "spec": dump_spec(late.replace(spec, disk=placed)),
        "image": {**late.asdict(image), "disk": "disk0.qcow2" if image.disk else "", **dict.fromkeys(BOOTS, "")},
        "boots": [field for field in BOOTS if getattr(image, field)],
        "disks": dict(disks),
        "record": {"image": record.image, "ssh_user": record.ssh_user, "agent": record.agent, "resident": record.resident},
    }


@contextmanager
def _compressed(target: Path | None, record: Record, *, force: bool) -> Iterator[BinaryIO]:
    """What is written goes compressed to a file that has its name once it is whole and on stable storage, or to stdout."""
    if find_tool("zstd") is None:
        raise PrepareError("a machine cannot be packed", why="zstd is not installed", fix="apt-get install zstd")
    try:
        with new_file(target, force=force) if target else _stdout() as descriptor:
            with compressing(descriptor, record.uid) as piped:
                with os.fdopen(os.dup(piped.end), "wb") as out:
                    piped.let_go()
                    yield out
                piped.finish()
            if target:
                os.fsync(descriptor)
    except BrokenPipeError as error:
        raise StateError("the export was cut short", why="who reads it has gone, or zstd has ended") from error


@contextmanager
def _stdout() -> Iterator[int]:
    with Closing(os.dup(sys.stdout.fileno())) as descriptor:
        yield descriptor
