"""Who else may use a file: POSIX access control lists as the kernel keeps them (source: acl(5), xattr(7))."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path

__all__ = ["READ", "READ_WRITE", "allow", "keep"]

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
