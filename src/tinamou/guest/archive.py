"""Folders as tar archives: packing one of this host, and unpacking one a guest sent, without trusting it."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO

from tinamou.errors import GuestError

__all__ = ["pack", "unpack"]


def pack(folder: Path, into: IO[bytes]) -> int:
    """Write the contents of ``folder`` as a tar archive and return how many entries it has.

    Modes, times and links are kept, the owner becomes root. Sockets, pipes and devices are left out, as scp does.
    """
    count = 0

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        nonlocal count
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            return None
        count += 1
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return member

    with tarfile.open(fileobj=into, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for entry in sorted(folder.iterdir()):
            archive.add(entry, arcname=entry.name, filter=kept)
    return count


def unpack(source: IO[bytes], folder: Path) -> int:
    """Unpack an archive that a guest made below ``folder``; returns how many entries. Raises GuestError.

    Nothing outside ``folder`` can be written: names that lead out are refused; symbolic links, which may point anywhere,
    are made last, so that nothing is written through them; nor through links that were there before. Set-user-id bits,
    owners, devices and pipes are dropped.
    """
    links: list[tuple[Path, tarfile.TarInfo]] = []
    folders: list[tuple[Path, tarfile.TarInfo]] = []
    root = folder.resolve()
    count = 0
    with tarfile.open(fileobj=source, mode="r:") as archive:
        for member in archive:
            path = _inside(root, member.name)
            if path == root and not member.isdir():
                raise GuestError("The guest's archive replaces the folder it goes to", why=repr(member.name))
            if member.issym():
                links.append((path, member))
            elif member.isdir():
                _make_folder(path)
                folders.append((path, member))
            elif member.isreg():
                _write_file(archive, member, path)
            elif member.islnk():
                _copy_link(root, member, path)
            else:
                continue
            count += 1
    for path, member in links:
        _clear(path)
        path.symlink_to(member.linkname)
    for path, member in reversed(folders):
        _restore(path, member)
    return count


def _inside(root: Path, name: str) -> Path:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise GuestError("The guest's archive holds a name that leads out of its folder", why=repr(name))
    path = root.joinpath(*pure.parts)
    if path != root and path.parent.resolve() != path.parent:
        raise GuestError("The guest's archive would be written through a link", why=f"{path.parent} is not a plain folder")
    return path


def _make_folder(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        _clear(path)
    path.mkdir(exist_ok=True, parents=True)
    path.chmod(0o700)


def _clear(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        raise GuestError(f"{path} is a folder here, and something else in the guest", fix="copy to another place")


def _write_file(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    _clear(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(member)
    assert content is not None
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file, content:
        shutil.copyfileobj(content, file, 1 << 20)
    _restore(path, member)


def _copy_link(root: Path, member: tarfile.TarInfo, path: Path) -> None:
    original = _inside(root, member.linkname)
    if original.is_symlink() or not original.is_file():
        raise GuestError(
            "The guest's archive holds a hard link to something that is not a file in it", why=repr(member.name)
        )
    _clear(path)
    os.link(original, path, follow_symlinks=False)


def _restore(path: Path, member: tarfile.TarInfo) -> None:
    path.chmod(stat.S_IMODE(member.mode) & 0o777)
    os.utime(path, (member.mtime, member.mtime))
