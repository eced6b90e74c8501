"""Reading files that somebody else may have put there: only plain ones with the owner and the size they should have."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path

from tinamou.errors import SpecError
from tinamou.system.closing import Closing

__all__ = ["OddFileError", "copy_plain", "folder_fault", "place_fault", "read_given", "read_own", "read_plain"]

_PIECE, _FEW = 1 << 20, 1 << 16


class OddFileError(OSError):
    """A file that is not what it should be: a link, a device, somebody else's, or too large."""


def read_plain(
    path: Path, *, owners: Collection[int] | None, most: int, fault: Callable[[os.stat_result], str] = lambda _: ""
) -> bytes:
    """What a file holds; see `copy_plain`. ``fault`` says what else is wrong with it."""
    with Closing(_opened(path, owners, most, fault)) as descriptor:
        found = bytearray()
        while piece := os.read(descriptor, min(_PIECE, most + 1 - len(found))):
            found += piece
    if len(found) > most:
        raise OddFileError(f"{path} grows while it is read")
    return bytes(found)


def read_given(path: str | Path, most: int) -> bytes:
    """What a file holds that the user named; a byte more than ``most`` says that it is too large. Raises SpecError."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            begins = file.read(min(_FEW, most + 1))  # room for all of it is not asked for at once: most are small
            return begins + file.read(most + 1 - len(begins)) if len(begins) == _FEW else begins
    except OSError as error:
        raise SpecError(f"{path} cannot be read", why=error.strerror or str(error), fix="check the path") from error


def read_own(path: Path, *, most: int, owner: int | None = None) -> bytes:
    """What a file holds that is acted on: a plain one of this user, or of ``owner``, that nobody else can write to.

    Raises OSError.
    """
    return read_plain(path, owners=None, most=most, fault=lambda status: _not_own(status, owner))


def _not_own(status: os.stat_result, owner: int | None) -> str:
    if status.st_nlink > 1:
        return f"has {status.st_nlink} names"
    return _own_fault(status, owner)


def _own_fault(status: os.stat_result, owner: int | None = None) -> str:
    owner = os.geteuid() if owner is None else owner
    if status.st_uid != owner:
        return f"belongs to user {status.st_uid}, not to {owner}"
    if status.st_mode & 0o022:
        return f"can be written to by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def folder_fault(path: Path) -> str:
    """Why what lies in a folder is not acted on: it is none, a link, another user's, or open to others. Else empty."""
    try:
        status = path.lstat()
    except OSError as error:
        return f"{path} cannot be looked at: {error.strerror}"
    if not stat.S_ISDIR(status.st_mode):
        return f"{path} is {'a link' if stat.S_ISLNK(status.st_mode) else 'no folder'}"
    wrong = _own_fault(status)
    return f"{path} {wrong}" if wrong else ""


def place_fault(path: Path) -> str:
    """The same, where nobody but this user and root may be able to put another folder in its place either."""
    if not path.is_absolute() or ".." in path.parts:
        return f"{path} is no plain path"
    for above in path.parents:
        try:
            status = above.stat()
        except OSError as error:
            return f"{above} cannot be looked at: {error.strerror}"
        if status.st_uid not in (0, os.geteuid()):
            return f"{above} belongs to user {status.st_uid}"
        if status.st_mode & 0o022 & ~_tolerated(status):
            return f"{above} can be written to by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return folder_fault(path)


def _tolerated(status: os.stat_result) -> int:
    """Others may write where they cannot replace what is not theirs; the user's own group may, too."""
    if status.st_mode & stat.S_ISVTX:
        return 0o022
    return 0o020 if status.st_gid == os.getegid() else 0


def copy_plain(source: Path, target: Path, *, owners: Collection[int] | None, most: int) -> None:
    """Copy a file to a new one that is this user's alone. Raises OSError; no half of it is left.

    ``source`` must be a plain file of at most ``most`` bytes that belongs to one of ``owners`` (None: anybody) and has no
    second name elsewhere, else OddFileError is raised. It is opened without following a link or waiting for anybody; the
    path of its folder is trusted.
    """
    data = read_plain(source, owners=owners, most=most)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except BaseException:
        with contextlib.suppress(OSError):
            target.unlink()
        raise


def _opened(path: Path, owners: Collection[int] | None, most: int, further: Callable[[os.stat_result], str]) -> int:
    with Closing(os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)) as held:
        status = os.fstat(held)
        if fault := _fault(status, owners, most) or further(status):
            raise OddFileError(f"{path} {fault}")
        return os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_CLOEXEC)


def _fault(status: os.stat_result, owners: Collection[int] | None, most: int) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "is no plain file"
    if owners is not None and status.st_uid not in owners:
        return f"belongs to user {status.st_uid}, not to {' or '.join(map(str, sorted(owners)))}"
    if owners is not None and status.st_nlink != 1:
        return f"has {status.st_nlink} names"
    if status.st_size > most:
        return f"holds {status.st_size} bytes, where {most} are the most"
    return ""
