"""What a machine is started without of the walls around its QEMU: nothing, unless it cannot bear one."""

from __future__ import annotations

from typing import Literal

from tinamou.fields import option
from tinamou.late import dataclass

__all__ = ["ConfineSpec"]


@dataclass(frozen=True)
class ConfineSpec:
    """All that the kernel allows stands, but for these."""

    without: tuple[Literal["files", "processes", "ipc", "hostname", "cgroups", "network"], ...] = option(
        (), "walls that are left out"
    )
