"""Modules without what they name at their heads and seldom ask: that is loaded when something of it is used.

For programs that are tinamou's alone, before they have threads: while such a module is loaded, others find the same.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

__all__ = ["lean_asyncio", "load_pathlib"]

_SELDOM = (
    "asyncio.sslproto", "asyncio.staggered", "inspect", "linecache", "locale", "logging", "ssl", "traceback", "urllib.parse",
)  # fmt: skip
_KNOWN = (3, 14)
"""Pythons before this one were looked at: later ones load as ever."""


def lean_asyncio() -> None:
    """From now on asyncio loads without TLS and without what reads sources, for traces and debugging: half of its weight."""
    if "asyncio" not in sys.modules:
        sys.meta_path.insert(0, _Lean())


class _Lean:
    """Finds asyncio, whoever asks for it first, and loads it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The import system asks."""
        if name != "asyncio":
            return None
        sys.meta_path.remove(self)
        spec = next(filter(None, (finder.find_spec(name, None) for finder in sys.meta_path)), None)
        if spec is not None:
            self._loader, spec.loader = spec.loader, self  # type: ignore[assignment]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """A module as any other."""

    def exec_module(self, module: ModuleType) -> None:
        """Load it, and have it know its own loader."""
        assert module.__spec__ and self._loader
        module.__spec__.loader = module.__loader__ = self._loader
        with _left_out():
            self._loader.exec_module(module)


def load_pathlib() -> None:
    """Load pathlib without what makes URLs, which that of Python 3.11 loads."""
    with _left_out():
        import pathlib
    assert pathlib


@contextlib.contextmanager
def _left_out() -> Iterator[None]:
    """What is loaded in the block finds stand-ins of those that are not there yet."""
    waiting = [_Seldom(one) for one in _SELDOM if one not in sys.modules and sys.version_info < _KNOWN]
    for one in waiting:
        sys.modules[one.__name__] = one
    try:
        yield
    finally:
        for one in waiting:
            one.leave()


class _Seldom(ModuleType):
    """Stands for a module; what is asked of it before it leaves is found when it is used."""

    waits = True

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # the import system asks
            raise AttributeError(name)
        return _Name(self, lambda: getattr(self.found(), name)) if self.waits else getattr(self.found(), name)

    def found(self) -> ModuleType:
        """The module itself."""
        self.leave()
        return next(importlib.import_module(name) for name in _SELDOM if name == self.__name__)

    def leave(self) -> None:
        """Stand in its place no more."""
        self.waits = False
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


class _Name:
    """A name of such a module, or what was made with it before the module left, as a logger is."""

    def __init__(self, home: _Seldom, find: Callable[[], object]) -> None:
        self._home, self._find = home, find

    def __call__(self, *words: object, **options: object) -> object:
        def call() -> object:
            return self._find()(*words, **options)  # type: ignore[operator]

        return _Name(self._home, call) if self._home.waits else call()

    def debug(self, *words: object) -> None:
        """Said by a logger: nobody can hear it before logging is loaded."""
        if "logging" in sys.modules:
            self.__getattr__("debug")(*words)  # type: ignore[operator]

    def __sub__(self, other: object) -> _Name:
        return _Name(self._home, lambda: self._find() - other)  # type: ignore[operator]

    def __getattr__(self, name: str) -> object:
        return getattr(self._find(), name)
