"""Writing an initial RAM file system: the newc cpio format, the same bytes for the same input.

Source: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from tinamou.errors import ImageError
from tinamou.late import dataclass

__all__ = ["Entry", "archive", "directory", "file", "link", "node"]

_LONGEST = 4095
_LARGEST = 0xFFFFFFFF
"""Every number of the format has eight hexadecimal digits."""


@dataclass(frozen=True)
class Entry:
    """One file of the archive: its mode with the type bits, its content (a link's target), a device's number."""

    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(stat.S_IFDIR | mode)


def file(content: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(stat.S_IFREG | mode, content)


def link(target: str) -> Entry:
    """A symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, os.fsencode(target))


def node(major: int, minor: int, mode: int = 0o600) -> Entry:
    """A character device."""
    return Entry(stat.S_IFCHR | mode, device=(major, minor))


def archive(entries: Mapping[str, Entry]) -> bytes:
    """The archive of all entries by path (without leading slash), owned by root, dated 1970, directories before content.

    Raises ImageError for a path or a content that the format cannot hold.
    """
    for path in entries:
        if len(path) > _LONGEST:
            raise ImageError(f"{path[:60]}… is no name of a file", why=f"it has more than {_LONGEST} characters")
    complete = {parent: directory() for path in entries for parent in _parents(path)} | dict(entries)
    parts = [_member(number, path, complete[path]) for number, path in enumerate(sorted(complete), 1)]
    parts.append(_member(0, "TRAILER!!!", Entry(0)))
    return _padded(b"".join(parts), 512)


def _parents(path: str) -> list[str]:
    pieces = path.split("/")[:-1]
    return ["/".join(pieces[: count + 1]) for count in range(len(pieces))]


def _member(number: int, path: str, entry: Entry) -> bytes:
    try:
        name = os.fsencode(path) + b"\0"
    except UnicodeEncodeError as error:
        raise ImageError(f"{path!r} is no name of a file", why=error.reason) from error
    if b"\0" in name[:-1] or max(len(entry.content), len(name), *entry.device) > _LARGEST:
        raise ImageError(f"{path!r} does not fit into an initrd", why="its name has a zero byte, or it is larger than 4 GiB")
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % value for value in fields)
    return _padded(header + name) + _padded(entry.content)


def _padded(data: bytes, boundary: int = 4) -> bytes:
    return data + b"\0" * (-len(data) % boundary)
