"""What a machine may use of the host at most, held by control groups."""

from __future__ import annotations

from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.units import Size

__all__ = ["LimitsSpec"]


@dataclass(frozen=True)
class LimitsSpec:
    """Limits on QEMU as a whole: virtual CPUs, emulation and I/O together."""

    cpu: float = option(0.0, "CPUs it may use, for example 1.5; 0 is no limit")
    memory: Size | None = option(
        None,
        "memory it may use, QEMU's own included; huge pages do not count; without it more than it ever needs",
        minimum=16 << 20,
    )
    pids: int | None = option(
        None, "processes and threads of QEMU and its helpers; without it more than they ever need", minimum=16
    )
    read: Size | None = option(None, "bytes a second it may read from the disk its files lie on", minimum=4096)
    write: Size | None = option(None, "bytes a second it may write to the disk its files lie on", minimum=4096)

    @property
    def any(self) -> bool:
        """Whether anything is limited."""
        return bool(self.cpu or self.memory or self.read or self.write or self.pids)

    @property
    def hundredths(self) -> int | None:
        """The CPU limit in hundredths of a CPU."""
        return round(self.cpu * 100) if self.cpu else None

    def problems(self) -> list[Problem]:
        """A limit the kernel would refuse."""
        if self.cpu and self.cpu < 0.01:
            return [Problem("cpu", self.cpu, "less than the kernel can hold a group to", "at least 0.01, or 0 for no limit")]
        return []
