"""What lies below one folder of this host, by descriptors: no name, and no link made meanwhile, leads out of it."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from functools import cache
from typing import Self

__all__ = ["Beneath", "kind_of"]

_OPENAT2 = 437
"""The number of the system call, on every architecture (source: Linux, include/uapi/asm-generic/unistd.h)."""

_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS = 16


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@cache
def _system_call() -> Callable[..., int] | None:
    """``syscall`` of the C library, where the kernel has openat2 (Linux 5.6) and no filter forbids it."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    how = _How(_FOLDER, 0, _BENEATH)
    found = call(_OPENAT2, -100, ctypes.c_char_p(b"."), ctypes.byref(how), ctypes.sizeof(how))
    if found < 0:
        return None
    os.close(found)
    return call


def _open_below(root: int, path: bytes, flags: int) -> int:
    """A descriptor of what ``path`` is below the folder ``root``; a link on the way, or at its end, is ELOOP."""
    call = _system_call()
    if call is None:
        return _open_step_by_step(root, path, flags)
    how = _How(flags, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
    for _ in range(_ATTEMPTS):
        found = call(_OPENAT2, root, ctypes.c_char_p(path), ctypes.byref(how), ctypes.sizeof(how))
        if found >= 0:
            return int(found)
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), os.fsdecode(path))


def _open_step_by_step(root: int, path: bytes, flags: int) -> int:
    """The same for a kernel without openat2: one name after another, none of which may be a link or lead up."""
    names = path.split(b"/")
    if b".." in names or b"" in names:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), os.fsdecode(path))
    at = os.dup(root)
    try:
        for name in names[:-1]:
            at, before = os.open(name, _FOLDER, dir_fd=at), at
            os.close(before)
        return os.open(names[-1], flags | os.O_NOFOLLOW, dir_fd=at)
    finally:
        os.close(at)


def kind_of(mode: int) -> str:
    """What a mode of stat says, as a word."""
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISLNK(mode):
        return "link"
    return "file" if stat.S_ISREG(mode) else "special file"


class Beneath:
    """A folder that is held open; paths are bytes relative to it, the folder itself is ``b"."``.

    No link is followed on any of them. ``with`` closes it. All raise OSError.
    """

    def __init__(self, descriptor: int) -> None:
        """Takes the descriptor over."""
        self.descriptor = descriptor
        self._last: tuple[bytes, int] | None = None

    @classmethod
    def at(cls, path: str | bytes | os.PathLike[str], *, dir_fd: int | None = None) -> Self:
        """A folder by its path; links on the way to it are followed, it must not be one itself."""
        return cls(os.open(path, _FOLDER, dir_fd=dir_fd))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let it go."""
        self._forget()
        os.close(self.descriptor)

    def _forget(self) -> None:
        if self._last is not None:
            os.close(self._last[1])
            self._last = None

    def folder(self, path: bytes) -> int:
        """A new descriptor of a folder."""
        return _open_below(self.descriptor, path, _FOLDER)

    def place(self, path: bytes) -> tuple[int, bytes]:
        """The folder that holds a path, and its name there; the descriptor is good until the next call."""
        parent, _, name = path.rpartition(b"/")
        if not parent:
            return self.descriptor, name
        if self._last is None or self._last[0] != parent:
            self._forget()
            self._last = (parent, self.folder(parent))
        return self._last[1], name

    def create(self, path: bytes) -> int:
        """A descriptor of a new file, for reading and writing, which only its owner may open."""
        folder, name = self.place(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=folder)

    def look(self, path: bytes) -> str:
        """What is there: a word of `kind_of`, or "nothing"."""
        folder, name = self.place(path)
        try:
            return kind_of(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return "nothing"

    def names(self, path: bytes = b".") -> list[bytes]:
        """What a folder holds."""
        folder = self.folder(path)
        try:
            return [os.fsencode(name) for name in os.listdir(folder)]  # noqa: PTH208 (a descriptor)
        finally:
            os.close(folder)

    def clear(self) -> None:
        """Remove all it holds, however deep: folders are moved up and emptied one by one, for paths may be too long to open.

        For a folder that is ours alone.
        """
        todo, number = self.names(), 0
        while todo:
            one = todo.pop()
            if self._unlinked(one):
                continue
            with Beneath.at(one, dir_fd=self.descriptor) as below:
                for name in below.names():
                    if not below._unlinked(name):
                        number += 1
                        todo.append(b"..%d" % number)
                        os.rename(name, todo[-1], src_dir_fd=below.descriptor, dst_dir_fd=self.descriptor)
            os.rmdir(one, dir_fd=self.descriptor)

    def _unlinked(self, name: bytes) -> bool:
        """Whether it is gone; a folder stays, and can be opened and moved by its owner from now on."""
        try:
            os.unlink(name, dir_fd=self.descriptor)
        except IsADirectoryError:
            os.chmod(name, 0o700, dir_fd=self.descriptor)
            return False
        return True
