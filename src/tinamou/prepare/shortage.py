"""What ran short while the host was made ready: the errors after which another plan may do."""

from __future__ import annotations

from tinamou.errors import PrepareError

__all__ = ["CpusTakenError", "GroupRefusedError", "PagesShortError"]


class CpusTakenError(PrepareError):
    """Another machine was faster; a new plan finds other CPUs."""


class PagesShortError(PrepareError):
    """The kernel could not find enough memory in one piece."""


class GroupRefusedError(PrepareError):
    """The kernel makes no control group here, though it looked as if it would; a machine without limits needs none."""
