"""Namespaces of the kernel: whether this process may make them, found out by making one."""

from __future__ import annotations

import functools
import os

__all__ = ["may_unshare"]


@functools.cache
def may_unshare(*kinds: str) -> bool:
    """Whether a child of this process may make namespaces, in the words of unshare(1); asked once, which takes about 3 ms.

    Refused in a chroot, by the system-call filters of most container engines, and by several sysctl settings: no file tells
    them all (source: user_namespaces(7), unshare(2)).
    """
    quiet = [(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
    try:
        child = os.posix_spawnp("unshare", ["unshare", *kinds, "true"], {"PATH": os.defpath}, file_actions=quiet)
    except OSError:
        return False
    return os.waitpid(child, 0)[1] == 0
