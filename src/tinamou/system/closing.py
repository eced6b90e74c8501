"""A descriptor that is closed where the block that uses it ends."""

from __future__ import annotations

import os

__all__ = ["Closing"]


class Closing:
    """``with Closing(os.open(path, flags)) as descriptor: …``"""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
