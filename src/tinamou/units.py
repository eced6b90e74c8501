"""Values with a unit or a fixed notation: sizes, CPU sets, MAC and PCI addresses; each parses and prints itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tinamou.late import dataclass

__all__ = ["CpuSet", "Mac", "PciAddress", "Size"]

_SUFFIXES = {"": 0, "B": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([BKMGTP]?)(?:I?B)?", re.IGNORECASE)


class Size(int):
    """A number of bytes, written ``"4G"``, ``"512MiB"`` or as a plain number of bytes; suffixes are powers of 1024."""

    @classmethod
    def parse(cls, text: str | int) -> Size:
        """``"1.5G"`` → ``Size(1610612736)``. Raises ValueError when it is not a size or not whole bytes."""
        if isinstance(text, bool):
            raise ValueError("not a size; write for example 512M or 2G")
        if isinstance(text, int):
            if text < 0:
                raise ValueError("a size cannot be negative")
            return cls._possible(text)
        match = _SIZE.fullmatch(text.strip())
        if not match:
            raise ValueError("not a size; write for example 512M or 2G")
        exact = float(match[1]) * 1024 ** _SUFFIXES[match[2].upper()]
        return cls._possible(exact)

    @classmethod
    def _possible(cls, number: float) -> Size:
        if number >= 1 << 63:
            raise ValueError("larger than any size can be")
        if number != int(number):
            raise ValueError("not a whole number of bytes")
        return cls(int(number))

    @property
    def whole(self) -> Size:
        """Rounded up to whole sectors of 512 bytes: less than one is no part of a disk."""
        return Size(-(-int(self) // 512) * 512)

    @property
    def mib(self) -> int:
        """Whole mebibytes, rounded down."""
        return int(self) >> 20

    @property
    def short(self) -> str:
        """Rounded to three digits or so, for reading: ``1.5G``, ``230M``, ``0``."""
        for suffix, power in (("T", 4), ("G", 3), ("M", 2), ("K", 1)):
            if int(self) >= 1024**power:
                share = int(self) / 1024**power
                return f"{share:.1f}{suffix}" if share < 10 and power > 2 else f"{share:.0f}{suffix}"
        return str(int(self))

    def __str__(self) -> str:
        for suffix, power in (("T", 4), ("G", 3), ("M", 2), ("K", 1)):
            if self and int(self) % 1024**power == 0:
                return f"{int(self) // 1024**power}{suffix}"
        return str(int(self))

    def __repr__(self) -> str:
        return f"Size('{self}')"


class CpuSet(frozenset[int]):
    """A set of CPU numbers in the kernel's list notation, ``"0-3,8"`` (source: cpuset(7), *List format*)."""

    highest = 65535
    """No kernel counts so far (source: arch/*/Kconfig, NR_CPUS)."""

    @classmethod
    def parse(cls, text: str) -> CpuSet:
        """``"0-3,8"`` → ``CpuSet({0, 1, 2, 3, 8})``; the empty string is the empty set. Raises ValueError."""
        numbers: set[int] = set()
        for part in filter(None, text.replace(" ", "").strip().split(",")):
            first, dash, last = part.partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()):
                raise ValueError("not a CPU list; write for example 0-3,8")
            if max(len(first), len(last)) > 5 or int(last or first) > cls.highest:
                raise ValueError(f"no host has a CPU of a number above {cls.highest}")
            if dash and int(last) < int(first):
                raise ValueError(f"the range {part} runs backwards")
            numbers.update(range(int(first), int(last or first) + 1))
        return cls(numbers)

    @classmethod
    def of(cls, numbers: Iterable[int]) -> CpuSet:
        """The set of the given CPU numbers."""
        return cls(numbers)

    def _runs(self) -> Iterator[tuple[int, int]]:
        ordered = sorted(self)
        start = previous = ordered[0]
        for number in ordered[1:]:
            if number != previous + 1:
                yield start, previous
                start = number
            previous = number
        yield start, previous

    def __str__(self) -> str:
        if not self:
            return ""
        return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in self._runs())

    def __repr__(self) -> str:
        return f"CpuSet('{self}')"


@dataclass(frozen=True, order=True)
class Mac:
    """A 48-bit Ethernet address, ``"52:54:00:12:34:56"``."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Mac:
        """Accepts colons or dashes; raises ValueError for anything else, and for multicast addresses."""
        plain = text.strip().lower().replace("-", ":")
        if not re.fullmatch(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", plain):
            raise ValueError("not a MAC address; write for example 52:54:00:12:34:56")
        if int(plain[:2], 16) & 1:
            raise ValueError("a multicast address cannot be a machine's own; the first octet must be even")
        return cls(plain)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, order=True)
class PciAddress:
    """A PCI function's address, ``"0000:0b:00.0"`` (domain may be left out)."""

    domain: int
    bus: int
    device: int
    function: int

    @classmethod
    def parse(cls, text: str) -> PciAddress:
        """``"0b:00.0"`` → domain 0, bus 11, device 0, function 0. Raises ValueError."""
        match = re.fullmatch(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", text.strip().lower())
        if not match or int(match[3], 16) > 31:
            raise ValueError("not a PCI address; write for example 0000:0b:00.0")
        return cls(int(match[1] or "0", 16), int(match[2], 16), int(match[3], 16), int(match[4]))

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}.{self.function}"
