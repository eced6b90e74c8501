"""A class whose coroutines are about the host it was made on, wherever they are awaited."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["of_host"]

C = TypeVar("C", bound=type)
_COROUTINE = 0x80
"""The flag of a coroutine function's code (source: Python's inspect, CO_COROUTINE)."""


def of_host(cls: C) -> C:
    """Run every coroutine method of the class with its ``_host`` active: several hosts can live in one process."""
    for name, method in vars(cls).copy().items():
        code = getattr(method, "__code__", None)
        if code is not None and code.co_flags & _COROUTINE:
            setattr(cls, name, _at_home(method))
    return cls


def _at_home(method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(method)
    async def there(self: Any, *arguments: Any, **options: Any) -> Any:
        with self._host.active():
            return await method(self, *arguments, **options)

    return there
