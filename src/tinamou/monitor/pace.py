"""How many machines a watch looks at at a time: all of a few, and of many so many that it takes little of the host."""

from __future__ import annotations

import math
from collections.abc import Collection

__all__ = ["LONGEST", "Pace"]

_SHARE = 0.006
"""Of one processor's time. What is done for all machines each time comes on top of it."""

_FEW = 16
"""So many are always looked at."""

LONGEST = 120.0
"""Seconds after which a machine is looked at, whatever that takes."""

_FIRST = 0.001
"""Seconds of processor time that one look takes, before it is known."""

_WEIGHT = 0.3


class Pace:
    """Says whose turn it is: those that were not looked at for longest."""

    def __init__(self) -> None:
        self._looked: dict[str, float] = {}
        self._cost, self._last = _FIRST, 0.0

    def due(self, names: Collection[str], now: float) -> list[str]:
        """Those of the machines to look at now; ``now`` is of the monotonic clock."""
        since, self._last = now - self._last, now
        self._looked = {name: self._looked.get(name, 0.0) for name in names}
        count = max(_FEW, int(_SHARE * since / self._cost), math.ceil(len(names) * since / LONGEST))
        return sorted(names, key=self._looked.__getitem__)[:count] if count < len(names) else list(names)

    def took(self, names: Collection[str], now: float, seconds: float) -> None:
        """They have been looked at, which took so many seconds of processor time."""
        self._looked |= dict.fromkeys(names, now)
        if names:
            self._cost += _WEIGHT * (max(seconds, 1e-6) / len(names) - self._cost)
