"""A ``dataclass`` decorator that does its work when a class gets its first instance: in one command most never do.

Doing it at once takes the standard library a third of a millisecond a class, most of all that starting tinamou takes.
``fields``, ``replace``, ``asdict`` and subclasses work as ever. ``slots`` are left out: they would need another class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    import dataclasses
    from _thread import RLock

    _LOCK = RLock()

    def dataclass(*, frozen=False, order=False):
        """The decorator; its options are those of `dataclasses.dataclass`."""

        def later(cls):
            def complete():
                with _LOCK:
                    if isinstance(cls.__dict__["__dataclass_fields__"], _Fields):
                        dataclasses.dataclass(frozen=frozen, order=order)(cls)

            def new(made, *_, **__):
                if isinstance(cls.__dict__["__dataclass_fields__"], _Fields):
                    complete()
                return object.__new__(made)

            cls.__new__ = new
            cls.__dataclass_fields__ = _Fields(complete)
            return cls

        return later

    class _Fields:
        """Stands where a dataclass keeps its fields until somebody asks for them."""

        def __init__(self, complete):
            self.complete = complete

        def __get__(self, instance, owner):
            self.complete()
            return owner.__dataclass_fields__
