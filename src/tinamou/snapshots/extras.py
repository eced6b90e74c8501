"""What a machine has besides disks: image, key, seed, SMBIOS strings, UEFI variables, vTPM; copied away, and back.

QEMU and swtpm may have been taken over, and their files made into anything: what is not a plain file of theirs is refused.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from tinamou.errors import StateError
from tinamou.facts import files, identities
from tinamou.snapshots.machine_disks import Disks
from tinamou.system.plain_file import OddFileError, copy_plain, read_plain

__all__ = ["FILES", "copy_files", "copy_tpm", "drop", "folder", "keep", "owners_of", "put_back"]

FILES: Mapping[str, int] = {
    files.IMAGE: 1 << 20,
    "id_ed25519": 1 << 16,
    "id_ed25519.pub": 1 << 16,
    files.SEED: 256 << 20,
    **dict.fromkeys(files.SEEDS, 4 << 20),
    **dict.fromkeys(files.OEM, 1 << 13),
    files.UEFI_VARS: 64 << 20,
}
"""Their names, and how many bytes each may hold: a taken-over QEMU can make its own as large as it likes."""

_TPM = "tpm"
_STATE = re.compile(r"tpm2-00\.[a-z]{1,20}")
"""The files of a TPM's state. swtpm writes each under another name and renames it, so that each copy is whole."""
_STATE_SIZE = 4 << 20
_TRIES = 20


def folder(disks: Disks, number: int) -> Path:
    """Where the extras of one snapshot are."""
    return disks.directory / "snapshots" / str(number)


def owners_of(machine: int | None) -> frozenset[int]:
    """Whose a machine's files may be: this user's, those of the uid its QEMU has, those of its TPM's."""
    return frozenset({os.geteuid(), *(() if machine is None else (machine, machine + identities.TPM))})


def keep(disks: Disks, number: int) -> None:
    """Copy variables and TPM. Raises StateError for odd files, and when the guest keeps changing them meanwhile."""
    drop(disks, number)
    target, theirs = folder(disks, number), owners_of(disks.owner)
    if (disks.directory / files.UEFI_VARS).exists():
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        _copy_steadily(disks.directory / files.UEFI_VARS, target / files.UEFI_VARS, theirs)
    if (disks.directory / _TPM).is_dir():
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        copy_tpm(disks.directory, target, theirs)


def drop(disks: Disks, number: int) -> None:
    """Remove the extras of one snapshot."""
    shutil.rmtree(folder(disks, number), ignore_errors=True)


def put_back(disks: Disks, number: int) -> None:
    """Make the machine's own what the snapshot kept; the machine must be off."""
    source, fresh, ours = folder(disks, number), disks.directory / f"extras{files.STAGING}", owners_of(None)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    if copy_files(source, fresh, [files.UEFI_VARS], ours):
        disks.hand_over(fresh / files.UEFI_VARS)
        (fresh / files.UEFI_VARS).replace(disks.directory / files.UEFI_VARS)
    if (source / _TPM).is_dir():
        copy_tpm(source, fresh, ours)
        shutil.rmtree(disks.directory / _TPM, ignore_errors=True)
        (fresh / _TPM).rename(disks.directory / _TPM)
    fresh.rmdir()


def copy_files(source: Path, target: Path, names: Iterable[str], owners: Collection[int] | None) -> list[str]:
    """Copy those of `FILES` that are there, of anybody where ``owners`` is None; returns their names.

    Raises StateError for an odd one.
    """
    done = []
    for name in names:
        with _refused(), contextlib.suppress(FileNotFoundError):
            copy_plain(source / name, target / name, owners=owners, most=FILES[name])
            done.append(name)
    return done


def copy_tpm(source: Path, target: Path, owners: Collection[int] | None) -> None:
    """Copy a TPM's state, and nothing else that lies there, from one folder's ``tpm`` to another's. Raises StateError."""
    names = [path.name for path in (source / _TPM).iterdir() if _STATE.fullmatch(path.name)]
    (target / _TPM).mkdir(mode=0o700)
    for name in names:
        with _refused(), contextlib.suppress(FileNotFoundError):
            copy_plain(source / _TPM / name, target / _TPM / name, owners=owners, most=_STATE_SIZE)


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except OddFileError as error:
        fix = "who wrote it may have been taken over: look at it, and end the machine"
        raise StateError("a file of the machine is not copied", why=str(error), fix=fix) from error


def _copy_steadily(source: Path, target: Path, owners: Collection[int]) -> None:
    """Copy a file that the guest may be writing: two readings in a row must agree."""
    with _refused():
        data = read_plain(source, owners=owners, most=FILES[source.name])
        for _ in range(_TRIES):
            again = read_plain(source, owners=owners, most=FILES[source.name])
            if again == data:
                break
            data = again
        else:
            raise StateError(f"{source} does not hold still", why="the guest is writing to it", fix="try again in a moment")
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
