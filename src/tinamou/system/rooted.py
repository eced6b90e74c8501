"""Files below a root: sysfs, procfs and cgroupfs of this host, or of a recorded tree with the same layout."""

from __future__ import annotations

import os

from tinamou.system.closing import Closing
from tinamou.units import CpuSet

__all__ = ["Rooted"]


class Rooted:
    """Reads kernel files by absolute path below ``root``; what is missing or unreadable is None, never an error."""

    def __init__(self, root: str = "/") -> None:
        self.root: str = root.rstrip("/")

    @property
    def real(self) -> bool:
        """Whether this is the running host rather than a recorded tree."""
        return not self.root

    def path(self, path: str) -> str:
        """The absolute path of a file below the root."""
        return self.root + path

    def read(self, path: str, limit: int = 1 << 20) -> str | None:
        """The text of a file without surrounding white space and NULs, at most ``limit`` bytes of it."""
        try:
            with Closing(os.open(self.root + path, os.O_RDONLY | os.O_CLOEXEC)) as descriptor:
                first = os.read(descriptor, min(limit, 65536))
                chunks = [first]
                while chunks[-1] and sum(map(len, chunks)) < limit and not self._small(path, first):
                    chunks.append(os.read(descriptor, 65536))
        except OSError:
            return None
        return b"".join(chunks).decode(errors="replace").strip("\0 \t\r\n")

    @staticmethod
    def _small(path: str, first: bytes) -> bool:
        return path.startswith("/sys/") and len(first) < 4096

    def write(self, path: str, text: str) -> None:
        """Writes a kernel file in one go. Raises OSError with the kernel's reason."""
        with Closing(os.open(self.root + path, os.O_WRONLY | os.O_CLOEXEC | os.O_TRUNC)) as descriptor:
            os.write(descriptor, text.encode())

    def writable(self, path: str) -> bool:
        """Whether this process may write there."""
        return os.access(self.root + path, os.W_OK)

    def integer(self, path: str) -> int | None:
        """A file holding one decimal number."""
        text = self.read(path)
        try:
            return int(text) if text else None
        except ValueError:
            return None

    def cpu_list(self, path: str) -> CpuSet | None:
        """A file in the list notation, ``0-3,8``."""
        text = self.read(path)
        try:
            return None if text is None else CpuSet.parse(text)
        except ValueError:
            return None

    def cpu_set(self, path: str) -> CpuSet | None:
        """A set the kernel offers twice: ``path_list`` in list notation, or only ``path`` as a mask on old kernels."""
        found = self.cpu_list(path + "_list")
        if found is not None:
            return found
        text = self.read(path)
        try:
            return None if text is None else mask(text)
        except ValueError:
            return None

    def names(self, path: str, start: str = "") -> list[str]:
        """The names in a folder, those with that ``start``, sorted; empty when it is missing."""
        try:
            return sorted(name for name in os.listdir(self.root + path) if name.startswith(start))  # noqa: PTH208
        except OSError:
            return []

    def target(self, path: str) -> str:
        """The last part of what a symbolic link points to, empty where there is none: a device's driver, or its group."""
        try:
            return os.readlink(self.root + path).rpartition("/")[2]  # noqa: PTH115
        except OSError:
            return ""

    def exists(self, path: str) -> bool:
        """Whether there is something at that path."""
        return os.path.exists(self.root + path)  # noqa: PTH110


def mask(text: str) -> CpuSet:
    """``"00000000,00000101"`` → CPUs 0 and 8 (source: Documentation/core-api/printk-formats.rst, *bitmap*)."""
    bits = int(text.replace(",", "") or "0", 16)
    return CpuSet(number for number in range(bits.bit_length()) if bits >> number & 1)
