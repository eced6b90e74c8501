"""Where a file holds data, and where only holes are."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

__all__ = ["extents"]


def extents(descriptor: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """The parts of a file that hold data, as begin and end, from ``start`` on (lseek(2), SEEK_DATA). Raises OSError."""
    while True:
        try:
            begin = os.lseek(descriptor, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        start = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield begin, start
