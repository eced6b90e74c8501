"""Who else may use a file: POSIX access control lists as the kernel keeps them (source: acl(5), xattr(7))."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path

__all__ = ["READ", "READ_WRITE", "allow", "keep", "lend", "take_back"]

READ, READ_WRITE = 4, 6
_NAME = "system.posix_acl_access"
_VERSION, _NOBODY = 2, 0xFFFFFFFF
_OWNER, _USER, _GROUP_OF_FILE, _GROUP, _MASK, _OTHERS = 1, 2, 4, 8, 16, 32
_NONE = (errno.ENODATA, errno.EOPNOTSUPP)


def allow(path: Path, users: Mapping[int, int], groups: Mapping[int, int]) -> None:
    """The owner may read and write a file, these users and groups what is said for each, nobody else anything.

    Raises OSError, with EOPNOTSUPP where the file system keeps no such lists.
    """
    if not users and not groups:
        _take_all(path)
        return
    most = 0
    for rights in (*users.values(), *groups.values()):
        most |= rights
    entries = [(_OWNER, READ_WRITE, _NOBODY), *((_USER, rights, one) for one, rights in sorted(users.items()))]
    entries += [(_GROUP_OF_FILE, 0, _NOBODY), *((_GROUP, rights, one) for one, rights in sorted(groups.items()))]
    entries += [(_MASK, most, _NOBODY), (_OTHERS, 0, _NOBODY)]
    os.setxattr(path, _NAME, struct.pack("<I", _VERSION) + b"".join(struct.pack("<HHI", *one) for one in entries))


def _take_all(path: Path) -> None:
    try:
        os.removexattr(path, _NAME)
    except OSError as error:
        if error.errno not in _NONE:
            raise
    path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)


def keep(old: Path, new: int) -> None:
    """Give a file that takes another's place the list that one has, if it has one. Raises OSError."""
    try:
        listed = os.getxattr(old, _NAME)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno in _NONE:
            return
        raise
    os.setxattr(new, _NAME, listed)


def lend(file: int, user: int, rights: int) -> None:
    """One more user may do that with an open file; what all others may stays as it is.

    Raises OSError, with EOPNOTSUPP where the file system keeps no such lists.
    """
    entries = _entries(file)
    most = next((one for tag, one, _ in entries if tag == _MASK), 7)
    bounded = (_USER, _GROUP_OF_FILE, _GROUP)
    kept = [(tag, one & most if tag in bounded else one, who) for tag, one, who in entries if tag != _MASK]
    _put(file, [one for one in kept if (one[0], one[2]) != (_USER, user)] + [(_USER, rights, user)])


def take_back(file: int, user: int) -> None:
    """Undoes `lend`. Raises OSError."""
    entries = _entries(file)
    left = [one for one in entries if (one[0], one[2]) != (_USER, user) and one[0] != _MASK]
    if len(left) < len(entries) - 1:
        _put(file, left)


def _entries(file: int) -> list[tuple[int, int, int]]:
    """Tag, rights and number of each entry; those of the mode where a file has no list."""
    try:
        listed = os.getxattr(file, _NAME)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        mode = os.fstat(file).st_mode
        return [(tag, mode >> shift & 7, _NOBODY) for tag, shift in ((_OWNER, 6), (_GROUP_OF_FILE, 3), (_OTHERS, 0))]
    return list(struct.iter_unpack("<HHI", listed[4:]))


def _put(file: int, entries: list[tuple[int, int, int]]) -> None:
    """Write the list, in the order the kernel wants, with a mask where it needs one, which bounds nobody."""
    most = 0
    for tag, rights, _ in entries:
        most |= rights if tag in (_USER, _GROUP_OF_FILE, _GROUP) else 0
    if any(tag in (_USER, _GROUP) for tag, _, _ in entries):
        entries = [*entries, (_MASK, most, _NOBODY)]
    ordered = sorted(entries, key=lambda one: (one[0], one[2]))
    os.setxattr(file, _NAME, struct.pack("<I", _VERSION) + b"".join(struct.pack("<HHI", *one) for one in ordered))
