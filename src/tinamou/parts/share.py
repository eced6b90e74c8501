"""Folders of the host that the guest sees as its own (virtio-fs): what is written about them, and what they need.

The device is plugged in when the guest answers and unplugged for every checkpoint (machine/shares.py): QEMU cannot save a
machine that has one.
"""

from __future__ import annotations

from typing import ClassVar

from tinamou.blueprint import Why
from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.settled import Need, SharedMemory

__all__ = ["ShareSpec", "needs"]


@dataclass(frozen=True)
class ShareSpec:
    """One shared folder. As a bare value ``/host/folder``, ``/host/folder:/in/the/guest`` or ``…:ro``."""

    shorthand: ClassVar[str] = "path"

    path: str = option("", "an absolute path of the host; also with what follows, as in /data:/mnt/data:ro")
    to: str = option("", "where the guest mounts it; /mnt/ and the folder's name when left out")
    readonly: bool = option(False, "the guest can read it only")

    @property
    def host(self) -> str:
        """The folder of the host."""
        return self._words[0]

    @property
    def guest(self) -> str:
        """The folder of the guest."""
        given = self.to or next((word for word in self._words[1:] if word.startswith("/")), "")
        return given or f"/mnt/{self.host.rstrip('/').rpartition('/')[2]}"

    @property
    def fixed(self) -> bool:
        """Whether the guest can only read it."""
        return self.readonly or "ro" in self._words[1:]

    @property
    def _words(self) -> list[str]:
        return [self.path] if self.to else self.path.split(":")

    def problems(self) -> list[Problem]:
        """What is no share."""
        found = []
        if not self.host.startswith("/"):
            found.append(Problem("path", self.path, "not an absolute path of the host", "write /host/folder:/guest:ro"))
        kinds = ["guest" if word.startswith("/") else word for word in self._words[1:]]
        if kinds not in ([], ["ro"], ["guest"], ["guest", "ro"]):
            found.append(Problem("path", self.path, "not HOST[:GUEST][:ro]", "give to and readonly as fields of their own"))
        if not self.guest.startswith("/") or self.guest == "/mnt/":
            found.append(Problem("to", self.to, "not an absolute path of the guest", "write for example /mnt/data"))
        return found


def needs(shares: tuple[ShareSpec, ...]) -> tuple[Need, ...]:
    """Memory that virtiofsd can read and write the guest's requests in."""
    why = Why("spec share", "virtiofsd, which serves the shared folders, works in the guest's memory")
    return (SharedMemory(why),) if shares else ()
