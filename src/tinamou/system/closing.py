"""What is done where a block ends: a descriptor closed, or, where it fails, what it began taken back."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Generic, ParamSpec

__all__ = ["Closing", "IfFailed"]

P = ParamSpec("P")


class Closing:
    """``with Closing(os.open(path, flags)) as descriptor: …``"""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class IfFailed(Generic[P]):
    """``with IfFailed(line.close): …`` calls that where the block raises, whatever it is; ``async with`` awaits it, too."""

    def __init__(self, undo: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        self._undo, self._args, self._kwargs = undo, args, kwargs

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._undo(*self._args, **self._kwargs)

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            await self._undo(*self._args, **self._kwargs)
