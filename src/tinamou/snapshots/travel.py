"""Portable checkpoints as files that stand alone, and checkpoints from such files: from one host to another."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.digest import file_digest
from tinamou.errors import ImageError, Problem, StateError
from tinamou.facts import files
from tinamou.images.chain import read_chain, read_layer
from tinamou.images.offline import made, offline
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.snapshots.archive import pack, unpack
from tinamou.snapshots.checkpoint import Checkpoint, File, intact, write
from tinamou.snapshots.extras import FILES
from tinamou.snapshots.history import Frozen
from tinamou.snapshots.save import STREAM, reserve
from tinamou.system.new_file import refuse_target
from tinamou.system.paths import state_dir
from tinamou.version import __version__

__all__ = ["Base", "bases", "export", "take_in"]

_MANIFEST = "manifest.json"
_FORMAT = 1
_KERNEL, _INITRD = "kernel", "initrd"


@dataclass(frozen=True)
class Base:
    """A file that disks rest on: where it is on this host, its format, the SHA-256 of its bytes."""

    path: str
    format: str
    sum: str


async def export(
    checkpoint: Checkpoint, target: Path, *, resting: Mapping[str, Base] | None = None, progress: Progress = silent
) -> None:
    """Write a portable checkpoint, its disks flattened, with the kernel it was started with, into one new file.

    Of disks that are ``resting`` on a file which the reader has, only what differs from that is written. Raises StateError
    for an instant or damaged checkpoint, and for what only this host has; ImageError, OSError.
    """
    if checkpoint.kind != "portable":
        what = f"checkpoint {checkpoint.name} is {checkpoint.kind}, and cannot leave this host"
        raise StateError(what, fix=f"tinamou checkpoint {checkpoint.machine} --kind portable")
    refuse_target(target, force=True)
    intact(checkpoint)
    _refuse_outside(checkpoint)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as name:
        staging = Path(name)
        files = {STREAM: Path(checkpoint.state.path)}
        for disk, frozen in checkpoint.disks.items():
            file = f"{disk}.qcow2"
            files[file] = staging / file
            await _flatten(checkpoint, frozen, staging / file, (resting or {}).get(disk), progress)
        files |= {name: checkpoint.file(name) for name in checkpoint.files}
        files |= _boot_files(checkpoint)
        sums = {disk: base.sum for disk, base in (resting or {}).items()}
        manifest = staging / _MANIFEST
        manifest.write_text(
            json.dumps({"format": _FORMAT, "tinamou": __version__, "checkpoint": _plain(checkpoint), "bases": sums})
        )
        pack({_MANIFEST: manifest, **files}, target)


def _refuse_outside(checkpoint: Checkpoint) -> None:
    """Discs and read-only disks are no part of a checkpoint."""
    disks = checkpoint.record["spec"].get("disk", [])
    problems = [
        Problem(f"disk[{index}].path", disk["path"], "is only read, and no part of the checkpoint")
        for index, disk in enumerate(disks)
        if disk.get("path") and (disk.get("readonly") or disk.get("interface") == "cdrom")
    ]
    if problems:
        fix = "take the checkpoint without it"
        raise StateError(f"checkpoint {checkpoint.name} would lack something elsewhere", problems=problems, fix=fix)


def bases(checkpoint: Checkpoint) -> dict[str, Base]:
    """The files at the bottom of its disks, by disk, which other hosts may have: images."""
    found = {}
    for disk, frozen in checkpoint.disks.items():
        chain = read_chain(Path(checkpoint.directory) / frozen.file, format=frozen.format, trusted=_trusted(frozen))
        if len(chain) > 1:
            found[disk] = Base(chain[-1].path, chain[-1].format, file_digest(Path(chain[-1].path)))
    return found


def _trusted(frozen: Frozen) -> list[Path]:
    return [Path(frozen.floor)] if frozen.floor else []


async def _flatten(checkpoint: Checkpoint, frozen: Frozen, target: Path, base: Base | None, progress: Progress) -> None:
    packed = ["-c", "-O", "qcow2", "-o", "compression_type=zstd"]
    packed += ["-B", base.path, "-F", base.format] if base else []
    argv = ["qemu-img", "convert", "-p", "-U", "-f", frozen.format, *packed, frozen.file, str(target)]
    await offline(argv, f"copying {frozen.file}", progress=progress, cwd=Path(checkpoint.directory))


def _boot_files(checkpoint: Checkpoint) -> dict[str, Path]:
    """The kernel and initial RAM disk the guest is started with when it is started again."""
    boot = checkpoint.record["spec"].get("boot", {})
    image = json.loads(checkpoint.file(files.IMAGE).read_text())
    chosen = boot if boot.get("kernel") else image
    return {name: Path(chosen[name]) for name in (_KERNEL, _INITRD) if chosen.get(name)}


def _plain(checkpoint: Checkpoint) -> dict[str, Any]:
    """The entry as it is everywhere: without folders."""
    disks = {
        name: {"device": one.device, "file": f"{name}.qcow2", "format": "qcow2"} for name, one in checkpoint.disks.items()
    }
    own = {"directory": "", "disks": disks, "owner": None, "parent": ""}
    return {**late.asdict(checkpoint), **own}


async def take_in(source: Path, name: str = "", *, images: Mapping[str, Base] | None = None) -> Checkpoint:
    """A checkpoint from an exported file, under its own name or another; ``images`` are files it may rest on, by SHA-256.

    Raises StateError; nothing is left then.
    """
    with tempfile.TemporaryDirectory(prefix=".import-", dir=_beside()) as folder:
        staging = Path(folder)
        try:
            names = unpack(source, staging)
        except OSError as error:
            raise StateError(f"{source} cannot be unpacked", why=str(error), fix="check the path, and make room") from error
        entry, sums = _entry(source, staging)
        for disk, summed in sums.items():
            if disk not in entry["disks"] or summed not in (images or {}):
                raise StateError(f"{source} does not stand alone", why=f"{disk} rests on a file that is not here")
            await _whole(staging / f"{disk}.qcow2", (images or {})[summed])
        with reserve(name or str(entry["name"])) as directory:
            for one in names - {_MANIFEST}:
                (staging / one).rename(directory / one)
            checkpoint = _settled(source, entry, directory)
            write(checkpoint)
            return checkpoint


async def _whole(file: Path, base: Base) -> None:
    """Put what differs upon the file it rests on here, and make one file of both."""
    await offline(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", base.path, "-F", base.format, str(file)], "its base")
    flat = file.with_suffix(".flat")
    argv = ["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", str(file), str(flat)]
    await made(argv, f"putting {file.stem} together", [str(file), base.path], flat, mode=0o600)
    flat.replace(file)


def _beside() -> Path:
    state_dir().mkdir(parents=True, exist_ok=True)
    return state_dir()


def _entry(source: Path, staging: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        manifest = json.loads((staging / _MANIFEST).read_text())
        if manifest["format"] != _FORMAT:
            why = f"format {manifest['format']}, by tinamou {manifest['tinamou']}"
            raise StateError(f"{source} was exported by another version of tinamou", why=why)
        return dict(manifest["checkpoint"]), {str(disk): str(sum) for disk, sum in manifest.get("bases", {}).items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(f"{source} was not exported by tinamou", why=f"{_MANIFEST}: {error!r}") from error


def _settled(source: Path, entry: Mapping[str, Any], directory: Path) -> Checkpoint:
    """The entry with the folders of this host. Raises StateError for what an export never is."""
    try:
        disks = {name: Frozen(**{**one, "floor": ""}) for name, one in entry["disks"].items()}
        files = {"binary": File(**entry["binary"]), "state": File.of(directory / STREAM), "ram": None}
        here = {"name": directory.name, "directory": str(directory), "owner": None, "kind": "portable", "disks": disks}
        checkpoint = Checkpoint(**{**entry, **files, **here})
        _put_boot_files(checkpoint)
        checkpoint.loaded_plan()
        named = [*checkpoint.files, *(one.file for one in disks.values())]
        layers = [read_layer(directory / one.file, one.format) for one in disks.values()]
    except (ValueError, KeyError, TypeError, OSError, ImageError) as error:
        raise StateError(f"{source} was not exported by tinamou", why=str(error)) from error
    foreign = [name for name in named if "/" in name or name in ("", ".", "..")]
    foreign += [name for name in checkpoint.files if name not in FILES]
    foreign += [layer.path for layer in layers if layer.header is not None and layer.header.backing_file]
    if foreign:
        raise StateError(f"{source} does not stand alone", why=f"it names files outside itself: {', '.join(foreign)}")
    return checkpoint


def _put_boot_files(checkpoint: Checkpoint) -> None:
    """Have the image, or the description where that names a kernel, point at the files that came along.

    QEMU opens these anew through the descriptors it is handed: its own user must be allowed to.
    """
    image_file = checkpoint.file(files.IMAGE)
    image = json.loads(image_file.read_text())
    boot = checkpoint.record["spec"].get("boot", {})
    chosen = boot if boot.get("kernel") else image
    for name in (_KERNEL, _INITRD):
        file = checkpoint.file(name)
        chosen[name] = str(file) if file.exists() else ""
        if file.exists():
            file.chmod(0o644)
    image_file.write_text(json.dumps({**image, "fast_kernel": ""}))
