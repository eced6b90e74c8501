"""What the checks may look at: files below a root, facts, and a few questions a test can answer in the host's place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tinamou.facts import AccelFacts, HostFacts, Permits, QemuFacts, WallFacts
from tinamou.late import dataclass
from tinamou.probe.firmware import FirmwareScan
from tinamou.system.disk import Folder
from tinamou.system.rooted import Rooted

__all__ = ["Inspection"]


def _silent(argv: Sequence[str]) -> str | None:
    return None


@dataclass(frozen=True)
class Inspection:
    """``command`` runs a program and returns its output, None when it is missing or failed; the others may return None.

    ``readers`` is what programs that read files from elsewhere run under, and why they do not, empty where they do.
    """

    files: Rooted
    facts: HostFacts
    command: Callable[[Sequence[str]], str | None] = _silent
    accel: Callable[[], AccelFacts | None] = lambda: None
    qemu: Callable[[], QemuFacts | None] = lambda: None
    firmware: Callable[[], FirmwareScan | None] = lambda: None
    folder: Callable[[], Folder | None] = lambda: None
    permits: Callable[[], Permits | None] = lambda: None
    walls: Callable[[], WallFacts | None] = lambda: None
    readers: Callable[[], Mapping[str, str]] = lambda: {}
    openable: Callable[[str], bool | None] = lambda path: None

    def cpu_flags(self) -> frozenset[str] | None:
        """The flags of the first CPU in /proc/cpuinfo; None where there are none (other architectures say less)."""
        for line in (self.files.read("/proc/cpuinfo", 1 << 16) or "").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features", "isa"):
                return frozenset(value.split())
        return None

    def command_line(self) -> dict[str, str] | None:
        """The kernel's parameters; a repeated one has its last value, one without a value the empty text."""
        text = self.files.read("/proc/cmdline")
        if text is None:
            return None
        words = (word.partition("=") for word in text.split(" -- ")[0].split())
        return {name: value for name, _, value in words}

    def kernel_log(self, *words: str) -> list[str] | None:
        """Lines of the kernel's log that hold one of the words, in any case; None when it may not be read."""
        text = self.command(["dmesg"])
        if text is None:
            return None
        return [line for line in text.splitlines() if any(word.lower() in line.lower() for word in words)]
