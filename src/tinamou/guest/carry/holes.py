"""Where a file of this host has data: what else is in it are holes, which need not be carried."""

from __future__ import annotations

import errno
import os

__all__ = ["MOST", "has_holes", "stretches"]

MOST = 64
"""Stretches of a file that are told apart; each costs the guest a few processes."""


def has_holes(file: int) -> bool:
    """Whether there is a hole in an open file."""
    return os.lseek(file, 0, os.SEEK_HOLE) < os.fstat(file).st_size


def stretches(file: int, unit: int) -> list[tuple[int, int]]:
    """Where there is data, as first unit and count of units (of so many bytes), in order, no more than `MOST` stretches."""
    gap = 16
    while len(found := _pass(file, unit, gap)) > MOST:
        gap *= 4
    return found


def _pass(file: int, unit: int, gap: int) -> list[tuple[int, int]]:
    """Holes of up to ``gap`` units count as data; it ends early when there are more than `MOST`."""
    found: list[tuple[int, int]] = []
    at = 0
    while len(found) <= MOST and (data := _data(file, at)) is not None:
        at = os.lseek(file, data, os.SEEK_HOLE)
        first, last = data // unit, -(-at // unit)
        if found and first - sum(found[-1]) <= gap:
            first = found.pop()[0]
        found.append((first, last - first))
    return found


def _data(file: int, at: int) -> int | None:
    """Where the next data is; None where only holes come."""
    try:
        return os.lseek(file, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
