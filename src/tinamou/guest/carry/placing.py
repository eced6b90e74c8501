"""Putting what a guest sent in its place on this host: kept aside until all of it is there, then moved, or gone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tinamou.errors import GuestError
from tinamou.guest.carry.beneath import Beneath
from tinamou.system.closing import Closing, IfFailed
from tinamou.system.shown import visible

__all__ = ["Aside", "room"]

_KINDS = {("folder", "folder"), ("file", "file"), ("link", "link")}
_NEW = b"new"


def room(folder: Path) -> tuple[int, int]:
    """Bytes and files a guest may fill at most there, if nobody says more: nine tenths of what is free. Raises OSError."""
    space = os.statvfs(folder)
    files = space.f_favail * 9 // 10 if space.f_files else 10_000_000
    return space.f_bavail * space.f_frsize * 9 // 10, files


class Aside:
    """A folder beside or in the place something will have, which only we may enter; ``with`` removes what is still in it."""

    def __init__(self, target: Path) -> None:
        """For a file, or a folder that may be there already. Raises OSError."""
        self._target = target
        self._merging = target.is_dir()
        self._parent = Beneath.at(os.path.realpath(target if self._merging else target.parent))
        self._name = f".tinamou-{secrets.token_hex(4)}.part".encode()
        with IfFailed(self._parent.close):
            os.mkdir(self._name, 0o700, dir_fd=self._parent.descriptor)
            self._aside = Beneath.at(self._name, dir_fd=self._parent.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._aside.clear()
            os.rmdir(self._name, dir_fd=self._parent.descriptor)
        finally:
            self._aside.close()
            self._parent.close()

    def file(self) -> int:
        """A descriptor of a new file, which `place_file` moves."""
        return self._aside.create(_NEW)

    def folder(self) -> Beneath:
        """A new folder, which `place_folder` moves."""
        os.mkdir(_NEW, 0o700, dir_fd=self._aside.descriptor)
        return Beneath.at(_NEW, dir_fd=self._aside.descriptor)

    def place_file(self) -> None:
        """Give the file its name; a file that has it is replaced. Raises GuestError where something else has it."""
        name = os.fsencode(self._target.name)
        _agree("file", self._parent.look(name), self._target)
        os.replace(_NEW, name, src_dir_fd=self._aside.descriptor, dst_dir_fd=self._parent.descriptor)

    def place_folder(self, new: Beneath, mode: int) -> None:
        """Give the folder its name and mode, or add what it holds to the folder that has it, which keeps its mode.

        Raises GuestError, before anything is moved, where something there is of another kind. What is there is never gone
        through, if it is a link.
        """
        if self._merging:
            for step in (_agreed, _moved):
                self._walk(new, step)
            return
        name = os.fsencode(self._target.name)
        _agree("folder", self._parent.look(name), self._target)
        os.rename(_NEW, name, src_dir_fd=self._aside.descriptor, dst_dir_fd=self._parent.descriptor)
        os.fchmod(new.descriptor, mode)

    def _walk(self, new: Beneath, step: Callable[[Beneath, Beneath, bytes, Path], None]) -> None:
        """Take a step with everything that is not a folder on both sides."""
        todo = [b"."]
        while todo:
            folder = todo.pop()
            for name in new.names(folder):
                path = name if folder == b"." else folder + b"/" + name
                if path == self._name:
                    raise GuestError("The guest's archive holds the name of the folder it is unpacked in")
                if (new.look(path), self._parent.look(path)) == ("folder", "folder"):
                    todo.append(path)
                else:
                    step(new, self._parent, path, self._target)


def _plain(path: Path) -> str:
    """A path as one line: a guest may have chosen a part of it."""
    return visible(str(path)).replace("\n", "\\n")


def _agree(ours: str, theirs: str, shown: Path) -> None:
    if theirs != "nothing" and (ours, theirs) not in _KINDS:
        raise GuestError(f"{_plain(shown)} is a {theirs} here, and a {ours} in the guest", fix="copy to another place")


def _agreed(new: Beneath, old: Beneath, path: bytes, target: Path) -> None:
    shown = target / os.fsdecode(path)
    _agree(new.look(path), old.look(path), shown)
    if os.fstat(old.place(path)[0]).st_dev != os.fstat(new.descriptor).st_dev:
        fix = "copy to that folder itself"
        raise GuestError(f"{_plain(shown.parent)} lies on another file system than {target}", fix=fix)


def _moved(new: Beneath, old: Beneath, path: bytes, target: Path) -> None:
    """Move it; a folder that even its owner may not write to must be opened to be moved."""
    source, name = new.place(path)
    to, _ = old.place(path)
    if new.look(path) != "folder":
        os.replace(name, name, src_dir_fd=source, dst_dir_fd=to)
        return
    with Closing(new.folder(path)) as folder:
        mode = os.fstat(folder).st_mode & 0o777
        os.fchmod(folder, 0o700)
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=to)
        os.fchmod(folder, mode)
