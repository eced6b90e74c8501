"""What is known of a Windows that is installed on a disk: found by images/, read from its volume and registry."""

from __future__ import annotations

from tinamou.late import dataclass

__all__ = ["WindowsFacts"]


@dataclass(frozen=True)
class WindowsFacts:
    """An installed Windows.

    ``start`` is where its volume begins, in bytes from the start of the disk. ``version`` and ``build`` are those of its
    kernel (``(10, 0)`` and 22631), ``server`` whether it is one, ``arch`` Windows' name of the processor (``amd64``,
    ``x86``, ``arm64``). ``control`` is the set of settings it starts with (``ControlSet001``), ``database`` whether drivers
    are found by the database of Windows 8 and later. ``drivers`` are virtio's that are installed, ``boots`` those of them
    that are loaded before its disk is there. ``device_path`` is where it looks for drivers of new devices. ``unfit`` says
    why nothing may be changed on its volume now; empty where it may.
    """

    start: int = 0
    product: str = ""
    version: tuple[int, int] = (0, 0)
    build: int = 0
    server: bool = False
    arch: str = ""
    control: str = "ControlSet001"
    database: bool = False
    drivers: tuple[str, ...] = ()
    boots: tuple[str, ...] = ()
    device_path: str = ""
    unfit: str = ""

    @property
    def fix(self) -> str:
        """What to do about one that is unfit: what is chosen from its menu to shut it down only hibernates it."""
        if "damaged" in self.unfit:
            return "take a sound copy of the disk, or repair it where it ran before"
        return "start it once where it ran before, and shut it down there with: shutdown /s /t 0"

    @property
    def name(self) -> str:
        """What people call it: the registry of Windows 11 says Windows 10."""
        if self.version == (10, 0) and self.build >= 22000 and not self.server:
            return self.product.replace("Windows 10", "Windows 11", 1)
        return self.product
