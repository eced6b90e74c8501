"""Entries of the state directory that are acted on: how one is read, and registers of named things in one file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tinamou import late
from tinamou.errors import StateError
from tinamou.system.lock import exclusive
from tinamou.system.paths import state_dir
from tinamou.system.plain_file import read_own
from tinamou.system.replaced import replace_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Register", "being_read"]

T = TypeVar("T", bound="DataclassInstance")

_MOST = 8 << 20


@contextlib.contextmanager
def being_read(what: str, *, fix: str) -> Iterator[None]:
    """The block reads ``what``; where that is not there, it is left. Raises StateError, for a damaged one with ``fix``."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        whose = "see whose it is; tinamou acts on nothing that others can write to"
        raise StateError(f"{what} is not read", why=str(error), fix=whose) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StateError(f"{what} is damaged", why=repr(error), fix=fix) from error


class Register(Generic[T]):
    """Things by name in one JSON file: ``kind`` is what they are called in it, ``made`` makes one of its name and fields."""

    def __init__(self, kind: str, made: Callable[[str, dict[str, Any]], T]) -> None:
        self._kind = kind
        self._made = made

    def read(self) -> dict[str, T]:
        """All of them. Raises StateError for a file that is not to be believed."""
        path = state_dir() / f"{self._kind}.json"
        try:
            data = json.loads(read_own(path, most=_MOST))
            return {name: self._made(name, one) for name, one in data[self._kind].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            fix = f"remove {path} and add the {self._kind} anew"
            raise StateError(f"the {self._kind} are not read", why=f"{path}: {error}", fix=fix) from error

    def update(self, change: Callable[[dict[str, T]], None]) -> None:
        """Change them under the file's lock. Raises StateError."""
        path = state_dir() / f"{self._kind}.json"
        with exclusive(path.with_suffix(".lock")):
            known = self.read()
            change(known)
            plain = {name: late.asdict(one) for name, one in known.items()}
            for one in plain.values():
                del one["name"]
            replace_text(path, json.dumps({"format": 1, self._kind: plain}, indent=1))
