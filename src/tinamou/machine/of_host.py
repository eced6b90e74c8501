"""A class whose coroutines are about the host it was made on, wherever they are awaited."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tinamou.errors import Problem, SpecError

__all__ = ["of_host"]

C = TypeVar("C", bound=type)
_COROUTINE = 0x80
"""The flag of a coroutine function's code (source: Python's inspect, CO_COROUTINE)."""

_KINDS = {"int": ("__index__", "a whole number"), "float": ("__float__", "a number"), "str": ("isprintable", "a text")}
"""Hint of an argument → what such a value has, and is."""


def of_host(cls: C) -> C:
    """Run every coroutine method of the class with its ``_host`` active: several hosts can live in one process.

    One that is called with a text for a number, or the other way round, raises SpecError, which names the argument.
    """
    for name, method in vars(cls).copy().items():
        code = getattr(method, "__code__", None)
        if code is not None and code.co_flags & _COROUTINE:
            setattr(cls, name, _at_home(method))
    return cls


def _at_home(method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(method)
    async def there(self: Any, *arguments: Any, **options: Any) -> Any:
        _refuse_odd(method, (self, *arguments), options)
        with self._host.active():
            return await method(self, *arguments, **options)

    return there


def _refuse_odd(method: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Refuse values that are not what the method's hints say. Raises SpecError."""
    code, problems = method.__code__, []
    for name, value in (*zip(code.co_varnames[: code.co_argcount], arguments, strict=False), *options.items()):
        hint, _, none = method.__annotations__.get(name, "").partition(" | ")
        has, what = _KINDS.get(hint, ("", ""))
        if has and none in ("", "None") and not (hasattr(value, has) or (none and value is None)):
            problems.append(Problem(name, value, f"it is not {what}"))
    if problems:
        raise SpecError(f"{method.__name__} cannot be called so", problems=problems)
