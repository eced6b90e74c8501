"""Landlock: a process gives up every file but those it names, and the network; run as a program, it then becomes another.

::

    python3 -I -S landlock.py --read /usr --read disk.vmdk --write out.qcow2 -- qemu-img convert …

Nothing but the standard library is imported: what this runs as may read little else. Source: landlock(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Iterable

__all__ = ["abi", "restrict"]

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_FIRST, _REFER, _TRUNCATE = (1 << 13) - 1, 1 << 13, 1 << 14
"""Rights of the first version of the interface, and those that the second and the third brought."""
_TCP, _SCOPES = 3, 3
"""Binding and connecting (since the fourth version); abstract sockets and signals of others (since the sixth)."""


def abi() -> int:
    """The version of the interface the kernel offers; 0 where it has none, or it is not active."""
    return max(0, int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)))


def restrict(read: Iterable[str], write: Iterable[str]) -> None:
    """Keep this process, and all it becomes and starts, from every file but these, and those below these folders.

    ``read`` may be read and run, ``write`` written to besides; names that lead nowhere are passed over. The process must
    have given up new privileges before. Raises OSError where the kernel cannot do it.
    """
    version = abi()
    if not version:
        raise OSError(errno.ENOSYS, "Landlock is not active")
    rights = _FIRST | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    words = [rights, *([_TCP] if version >= 4 else []), *([_SCOPES] if version >= 6 else [])]
    attributes = struct.pack(f"<{len(words)}Q", *words)
    rules = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for path in read:
            _allow(rules, path, _EXECUTE | _READ_FILE | _READ_DIR)
        for path in write:
            _allow(rules, path, _READ_FILE | _READ_DIR | _WRITE_FILE | rights & _TRUNCATE)
        _call(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= ~_READ_DIR
        _call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("<Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    done = int(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))
    if done < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return done


def _main(words: list[str]) -> None:
    end = words.index("--")
    pairs = list(zip(words[:end:2], words[1:end:2], strict=True))
    restrict([path for kind, path in pairs if kind == "--read"], [path for kind, path in pairs if kind == "--write"])
    os.execv(words[end + 1], words[end + 1 :])  # noqa: S606


if __name__ == "__main__":
    _main(sys.argv[1:])
