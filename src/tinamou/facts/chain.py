"""The files one disk reads through, as their headers say: settled before planning."""

from __future__ import annotations

from tinamou.late import dataclass


@dataclass(frozen=True)
class ChainFile:
    """One file of a chain; ``own`` when it belongs to the machine, which alone may write to it; ``frozen`` when it is a
    checkpoint's, which nobody writes to any more. ``size`` is that of the guest's disk in bytes, 0 where it is not known;
    ``odd`` when the file's own length is no whole number of sectors; ``packed`` when its data is, as a streamOptimized
    vmdk's, into which nothing smaller than a grain can be written."""

    path: str
    format: str
    own: bool = False
    encrypted: bool = False
    frozen: bool = False
    size: int = 0
    odd: bool = False
    packed: bool = False
