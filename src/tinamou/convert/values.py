"""Values as other tools write them: sizes with a default unit, whole numbers, lists of CPUs, names."""

from __future__ import annotations

import re
import shlex

from tinamou.units import CpuSet, Size

__all__ = ["colons", "cpu_set", "machine_name", "mebibytes", "size", "switch", "whole", "words"]

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")
_POWERS = {"b": 0, "bytes": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


_LONGEST = 18
"""Digits of a size: more are no size of anything, and too many for a number of bytes."""
_LONGEST_CPU = 5
"""Digits of a CPU's number."""


def size(text: str, *, unit: str) -> Size | None:
    """``size("4096", unit="M")`` is 4 GiB; None for what is no size. KB and MB of libvirt are powers of 1000."""
    match = _SIZE.fullmatch(text)
    if not match:
        return None
    suffix = (match[2] or unit).lower()
    if len(match[1]) > _LONGEST:
        return None
    decimal = suffix in ("kb", "mb", "gb", "tb")
    power = _POWERS.get(suffix, _POWERS.get(suffix.removesuffix("b").removesuffix("i")))
    return None if power is None else Size(int(float(match[1]) * (1000 if decimal else 1024) ** power))


def mebibytes(text: str) -> str | None:
    """So many bytes, or a size with its unit, in whole mebibytes as machine files have it; None for no size, and for 0."""
    found = size(text, unit="B")
    return None if not found else str(Size(-(-found >> 20) << 20))


def whole(text: str) -> int | None:
    """A whole number, None for anything else."""
    try:
        return int(text, 0)
    except ValueError:
        return None


def colons(digits: str) -> str:
    """A hardware address written without them: two digits, a colon, and so on."""
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


def cpu_set(text: str) -> CpuSet:
    """A list of CPUs; empty for what is none, or names CPUs no host has."""
    if any(len(number) > _LONGEST_CPU for number in re.findall(r"\d+", text)):
        return CpuSet()
    try:
        return CpuSet.parse(text)
    except ValueError:
        return CpuSet()


def switch(text: str) -> bool:
    """Whether a word says yes."""
    return text.strip().lower() in ("on", "yes", "true", "1", "y", "unmap")


def machine_name(text: str) -> str:
    """A name with letters a machine's may have; empty where none is left."""
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:48].strip("-")


def words(line: str) -> list[str]:
    """A line's words as a shell would have them; the line itself where no shell would take it."""
    try:
        return shlex.split(line)
    except ValueError:
        return [line]
