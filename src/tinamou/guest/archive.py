"""Folders as tar archives: packing one of this host, and unpacking one that a guest sent, without trusting it."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import IO

from tinamou.errors import GuestError
from tinamou.guest.carry.beneath import Beneath
from tinamou.guest.carry.holes import has_holes
from tinamou.guest.carry.tar import BLOCK, Member, Reader
from tinamou.late import dataclass
from tinamou.system.closing import Closing

__all__ = ["Packing", "Unpacking", "content", "opened", "parts_of", "restore"]

_PIECE = 1 << 20
_LONGEST_PATH, _LONGEST_NAME = 4095, 255
_LARGE = 64 << 10
"""Bytes from which on a file with holes is carried by itself."""


@dataclass(frozen=True)
class _Entry:
    header: bytes
    path: str
    size: int


class Packing:
    """A folder's contents as a tar archive of a known ``size``: modes, times and links are kept, the owner becomes root.

    Sockets, pipes and devices are left out, as scp does. Large files with holes are empty in it, and named in ``sparse``: as
    name in the folder, and path. Raises OSError.
    """

    def __init__(self, folder: str) -> None:
        self.sparse: list[tuple[str, str]] = []
        self._entries: list[_Entry] = []
        with tarfile.open(fileobj=io.BytesIO(), mode="w", format=tarfile.GNU_FORMAT) as examiner:
            todo = [(folder, "")]
            while todo:
                path, name = todo.pop()
                inside = [(f"{path}/{one}", f"{name}/{one}" if name else one) for one in sorted(os.listdir(path))]  # noqa: PTH208 (names alone)
                todo += [one for one in inside if self._add(examiner, *one)]
        self.size: int = sum(len(one.header) + one.size + -one.size % BLOCK for one in self._entries) + 2 * BLOCK

    def _add(self, examiner: tarfile.TarFile, path: str, name: str) -> bool:
        """Whether it is a folder."""
        member = examiner.gettarinfo(path, arcname=name)
        if member is None or not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            return False
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        if member.isreg() and member.size > _LARGE and "\n" not in name and _is_sparse(path):
            self.sparse.append((name, path))
            member.size = 0
        header = member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        self._entries.append(_Entry(header, path, member.size if member.isreg() else 0))
        return member.isdir()

    def pieces(self) -> Iterator[bytes]:
        """The archive. Raises OSError, GuestError when a file changes meanwhile."""
        for entry in self._entries:
            yield entry.header
            if entry.size:
                with os.fdopen(opened(entry.path), "rb", buffering=0) as file:
                    yield from content(file, entry.path, 0, entry.size)
                yield bytes(-entry.size % BLOCK)
        yield bytes(2 * BLOCK)


def opened(path: str) -> int:
    """A descriptor of a file of this host, for reading. Raises OSError, GuestError where it is no file any more."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _changed(path)
    return file


def _changed(path: str) -> GuestError:
    return GuestError(f"{path} changed while it was copied", fix="try again when nobody writes to it")


def _is_sparse(path: str) -> bool:
    with contextlib.suppress(PermissionError), Closing(opened(path)) as file:
        return has_holes(file)
    return False


def content(file: IO[bytes], path: str, start: int, end: int) -> Iterator[bytes]:
    """What is between two offsets of a file of this host. Raises OSError, GuestError when the file is shorter by now."""
    file.seek(start)
    while start < end:
        piece = file.read(min(end - start, _PIECE))
        if not piece:
            raise _changed(path)
        start += len(piece)
        yield piece


def parts_of(name: bytes) -> bytes:
    """A name in a guest's archive as a path below a folder, ``b"."`` for the folder itself. Raises GuestError."""
    if name.startswith(b"/") or b".." in name.split(b"/"):
        raise GuestError("The guest's archive holds a name that leads out of its folder", why=repr(name[:200]))
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    path = b"/".join(parts)
    if len(path) > _LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in parts):
        why = f"{name[:60]!r}… has {len(name)} bytes and {len(parts)} parts"
        raise GuestError("The guest's archive holds a name that is too long", why=why)
    if b"\0" in path:
        raise GuestError("The guest's archive holds a name that cannot be", why=repr(name[:200]))
    return path or b"."


class Unpacking:
    """Makes what a guest's archive holds in a new folder that nobody else can enter, and nothing outside it.

    Links are made last, by `finish`, so that nothing is ever written through one. Owners, set-user-id bits, devices and
    pipes are dropped; ``dropped`` has the names of the last two. ``mode`` is that of the whole folder, in the end. At most
    ``most`` things are made. Raises GuestError, OSError.
    """

    def __init__(self, root: Beneath, most: int) -> None:
        self._root = root
        self._most = most
        self._kinds: dict[bytes, str] = {b".": "folder"}
        self._folders: dict[bytes, tuple[int, int | None]] = {}
        self._links: dict[bytes, Member] = {}
        self.dropped: list[bytes] = []
        self.mode: int = 0o755

    def unpack(self, archive: Reader) -> None:
        """Make everything but the links."""
        for member in archive:
            path = parts_of(member.name)
            if member.kind == "other":
                self.dropped.append(member.name)
            elif member.kind == "folder":
                self._folder(path, member)
            elif member.kind == "file":
                self._file(path, member, archive)
            else:
                self._admit(path, member.kind)
                self._links[path] = member

    def create(self, path: bytes) -> int:
        """A descriptor of a new file; one that an earlier member of this name made is replaced."""
        if not self._admit(path, "file"):
            folder, name = self._root.place(path)
            os.unlink(name, dir_fd=folder)
        return self._root.create(path)

    def finish(self) -> None:
        """Make the links, then give the folders their modes and times, all but the folder that everything is in."""
        for kind, make in (("hardlink", self._hard_link), ("symlink", self._symlink)):
            for path, member in self._links.items():
                if member.kind == kind:
                    make(path, member)
        whole = self._folders.pop(b".", None)
        self.mode = whole[0] & 0o777 if whole else 0o755
        for path in sorted(self._folders, key=lambda path: path.count(b"/"), reverse=True):
            mode, time = self._folders[path]
            with Closing(self._root.folder(path)) as folder:
                restore(folder, mode, time)

    def _admit(self, path: bytes, kind: str) -> bool:
        """Whether this name is new. Raises GuestError for one that was something else, or lies below something else."""
        before = self._kinds.get(path)
        if before is None:
            self._parents(path)
            self._note(path, kind)
        elif path == b".":
            raise GuestError("The guest's archive replaces the folder it goes to", why=f"by a {kind}")
        elif before != kind:
            raise GuestError("The guest's archive holds one name as two kinds of thing", why=f"{path!r}: {before}, {kind}")
        return before is None

    def _note(self, path: bytes, kind: str) -> None:
        if len(self._kinds) > self._most:
            raise GuestError("The guest's archive holds too many files", why=f"more than {self._most}")
        self._kinds[path] = kind

    def _parents(self, path: bytes) -> None:
        """Make the folders a path lies in, where no member did."""
        missing = []
        parent = path.rpartition(b"/")[0]
        while parent and self._kinds.get(parent) is None:
            missing.append(parent)
            parent = parent.rpartition(b"/")[0]
        if parent and self._kinds[parent] != "folder":
            why = f"{path!r}, and {parent!r} is a {self._kinds[parent]}"
            raise GuestError("The guest's archive holds something below what is no folder", why=why)
        for one in reversed(missing):
            self._make_folder(one, 0o755, None)

    def _make_folder(self, path: bytes, mode: int, time: int | None) -> None:
        self._note(path, "folder")
        folder, name = self._root.place(path)
        os.mkdir(name, 0o700, dir_fd=folder)
        self._folders[path] = (mode, time)

    def _folder(self, path: bytes, member: Member) -> None:
        if path not in self._kinds:
            self._parents(path)
            self._make_folder(path, member.mode, member.time)
        elif self._kinds[path] != "folder":
            self._admit(path, "folder")
        self._folders[path] = (member.mode, member.time)

    def _file(self, path: bytes, member: Member, archive: Reader) -> None:
        with os.fdopen(self.create(path), "wb", buffering=0) as file:
            for piece in archive.content():
                _write(file, piece)
            restore(file.fileno(), member.mode, member.time)

    def _hard_link(self, path: bytes, member: Member) -> None:
        original = parts_of(member.target)
        if self._kinds.get(original) != "file":
            why = f"{member.name!r} to {member.target!r}"
            raise GuestError("The guest's archive holds a hard link to something that is not a file in it", why=why)
        folder, name = self._root.place(original)
        with Closing(os.dup(folder)) as source:
            folder, new = self._root.place(path)
            os.link(name, new, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)

    def _symlink(self, path: bytes, member: Member) -> None:
        if not member.target or b"\0" in member.target:
            raise GuestError("The guest's archive holds a link to nothing", why=repr(member.name[:200]))
        folder, name = self._root.place(path)
        os.symlink(member.target, name, dir_fd=folder)


def _write(file: io.FileIO, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[file.write(left) :]


def restore(descriptor: int, mode: int, time: int | None) -> None:
    """Give a file or folder its mode, without the bits that lend rights, and its time, where the file system knows such."""
    os.fchmod(descriptor, mode & 0o777)
    if time is not None:
        try:
            os.utime(descriptor, ns=(time, time))
        except (OSError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.EINVAL, errno.EOVERFLOW):
                raise
