"""What belongs to a snapshot besides disks: the UEFI variable store and the vTPM's state, copied beside it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tinamou.errors import StateError
from tinamou.snapshots.machine_disks import Disks

__all__ = ["drop", "folder", "keep", "put_back"]

_FILES = ("vars.fd",)
_FOLDERS = ("tpm",)
_FLEETING = shutil.ignore_patterns(".lock", "*.sock", "*.log", "TMP*")
"""What of a TPM's folder is no state; swtpm writes its state to a TMP file and renames it, so that each copy is whole."""
_TRIES = 20


def folder(disks: Disks, number: int) -> Path:
    """Where the extras of one snapshot are."""
    return disks.directory / "snapshots" / str(number)


def keep(disks: Disks, number: int) -> None:
    """Copy what the machine has of these. Raises StateError when the guest keeps changing them while they are copied."""
    target = folder(disks, number)
    for name in _FILES:
        if (disks.directory / name).exists():
            target.mkdir(parents=True, exist_ok=True, mode=0o700)
            _copy_steadily(disks.directory / name, target / name)
    for name in _FOLDERS:
        if (disks.directory / name).is_dir():
            target.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copytree(disks.directory / name, target / name, ignore=_FLEETING)


def drop(disks: Disks, number: int) -> None:
    """Remove the extras of one snapshot."""
    shutil.rmtree(folder(disks, number), ignore_errors=True)


def put_back(disks: Disks, number: int) -> None:
    """Make the machine's own what the snapshot kept; the machine must be off."""
    source = folder(disks, number)
    for name in _FILES:
        if (source / name).exists():
            _replace_file(disks, source / name, disks.directory / name)
    for name in _FOLDERS:
        if (source / name).is_dir():
            fresh = disks.directory / f"{name}.part"
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(source / name, fresh)
            shutil.rmtree(disks.directory / name, ignore_errors=True)
            fresh.rename(disks.directory / name)


def _replace_file(disks: Disks, source: Path, target: Path) -> None:
    part = target.with_name(target.name + ".part")
    shutil.copyfile(source, part)
    part.chmod(0o600)
    disks.hand_over(part)
    part.replace(target)


def _copy_steadily(source: Path, target: Path) -> None:
    """Copy a file of at most a few MiB that the guest may be writing: two readings in a row must agree."""
    data = source.read_bytes()
    for _ in range(_TRIES):
        again = source.read_bytes()
        if again == data:
            break
        data = again
    else:
        raise StateError(f"{source} does not hold still", why="the guest is writing to it", fix="try again in a moment")
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
