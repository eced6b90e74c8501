"""What commands printed: shown up to a bound, kept a while so that the rest can be asked for."""

from __future__ import annotations

import secrets
from collections import OrderedDict

from tinamou.errors import StateError

__all__ = ["Outputs", "shown"]

_KEPT, _KEPT_BYTES = 32, 64 << 20
"""Outputs that are kept at most, and their bytes in sum; the oldest go first."""


def shown(text: bytes, most: int) -> tuple[str, int]:
    """The beginning and the end of an output, ``most`` bytes of it in all, and how many between them were cut."""
    if len(text) <= most:
        return text.decode(errors="replace"), 0
    head, cut = most // 2, len(text) - most
    end = text[head + cut :].decode(errors="replace")
    return f"{text[:head].decode(errors='replace')}\n[… {cut} bytes cut here …]\n{end}", cut


class Outputs:
    """Outputs by the ids they were given."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def keep(self, text: bytes) -> str:
        """Keep an output; its id."""
        key = secrets.token_hex(4)
        self._kept[key] = text
        while len(self._kept) > _KEPT or (len(self._kept) > 1 and sum(map(len, self._kept.values())) > _KEPT_BYTES):
            self._kept.popitem(last=False)
        return key

    def find(self, key: str) -> bytes:
        """An output by its id. Raises StateError for one that is not kept any more."""
        if key not in self._kept:
            raise StateError(
                f"there is no output {key}",
                why=f"the last {_KEPT} that were cut are kept",
                fix="run the command again, its output written to a file of the guest",
            )
        return self._kept[key]
