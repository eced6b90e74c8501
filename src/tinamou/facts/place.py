"""Where on this host a machine's files and sockets go, and which numbers are free for it."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.late import dataclass, field
from tinamou.units import CpuSet, Size


@dataclass(frozen=True)
class Place:
    """``directory`` holds the machine's files and sockets; ``uid`` is leased to its QEMU, None when tinamou is not root.

    ``ssh_port`` is a TCP port on 127.0.0.1 that was free when asked. ``leased`` are the CPUs other machines hold, ``claims``
    the memory other machines were promised and have not touched yet. A ``throwaway`` machine is
    started once and then gone. ``machine_type`` is the board it must have, for a state was saved on it; else it is chosen.
    ``identity`` is the name its guest knows it by, where that is another one; the disks of a ``copied`` machine were
    another's before.
    """

    name: str
    directory: str
    uid: int | None = None
    ssh_port: int = 0
    leased: Mapping[str, CpuSet] = field(default_factory=dict)
    claims: Mapping[str, Size] = field(default_factory=dict)
    throwaway: bool = False
    machine_type: str = ""
    identity: str = ""
    copied: bool = False

    @property
    def known_as(self) -> str:
        """The name that addresses and the guest's identity are made of: the first one it had."""
        return self.identity or self.name

    def file(self, name: str) -> str:
        """The path of one of the machine's files."""
        return f"{self.directory}/{name}"
