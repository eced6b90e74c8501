"""Landlock: whether the kernel has it, what its version can refuse; laid by images/programs/jail.c. Source: landlock(7)."""

from __future__ import annotations

import ctypes

__all__ = ["abi", "masks"]

_CREATE_RULESET, _VERSION_FLAG = 444, 1
_FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
"""All of the first version; moving elsewhere, cutting off, commands to devices."""
_TCP, _SCOPES = 3, 3
"""Binding and connecting (since the fourth version); abstract sockets and signals of others (since the sixth)."""


def abi() -> int:
    """The version of the interface the kernel offers; 0 where it has none, or it is not active."""
    return max(0, int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)))


def masks() -> tuple[int, int, int]:
    """All that can be refused here: of files, network, scopes."""
    version = abi()
    files = sum(right for since, right in _FILES.items() if since <= version)
    return files, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0
