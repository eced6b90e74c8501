"""All that names a machine by its name, changed with it; what a crash or a failure left is done again by every command."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.errors import TinamouError
from tinamou.facts import files
from tinamou.machine import autostart
from tinamou.machine.schedules import rename_schedules
from tinamou.state import machines, networks, uids
from tinamou.state.record import Record, update, written_anew
from tinamou.system.closing import IfFailed
from tinamou.system.plain_file import read_own
from tinamou.system.replaced import replace_text

__all__ = ["moving", "settle", "with_paths"]

_MOST = 1 << 16


@contextlib.contextmanager
def moving(folder: Path) -> Iterator[None]:
    """The machine's folder gets another name in the block: from before it until `settle` a mark tells of the old one."""
    mark = folder / files.RENAMED
    replace_text(mark, "\n".join([*_marked(folder), folder.name]))
    with IfFailed(mark.unlink, missing_ok=True):
        yield


def settle(place: Path) -> list[str]:
    """All that names the machine of that folder by a name it had names it as the folder; done again, it changes nothing.

    What failed, a sentence each; the mark stays then. The machine's folder must be held. Raises StateError, OSError.
    """
    failed: list[str] = []
    for old in (one for one in _marked(place) if one != place.name and not os.path.lexists(place.with_name(one))):
        failed += [f"not everything names {place.name} so yet: {said}" for said in _known_by(place.with_name(old), place)]
    if not failed:
        (place / files.RENAMED).unlink(missing_ok=True)
    return failed


def _marked(folder: Path) -> list[str]:
    """The names it had, which something may still name it by."""
    with contextlib.suppress(FileNotFoundError):
        return read_own(folder / files.RENAMED, most=_MOST).decode().split()
    return []


def _known_by(old: Path, place: Path) -> Iterator[str]:
    """What rests on it comes first, then its own files, then what others see of it; each is tried, come what may."""
    record = written_anew(place)
    steps: list[Callable[[], object]] = [
        lambda: _rebased(old.name, place.name),
        lambda: uids.moved(old, place),
        lambda: networks.rename_machine(old.name, place.name),
        *(lambda name=name: with_paths(place / name, f"{old}/", f"{place}/") for name in (files.PLAN, files.IMAGE)),
        lambda: rename_schedules(old.name, place.name),
        *autostart.renaming(old.name, record),
    ]
    for step in steps:
        try:
            step()
        except (TinamouError, OSError, ValueError) as error:
            yield " ".join(str(error).split())


def _rebased(old: str, new: str) -> None:
    def changed(found: Record) -> Record:
        return late.replace(found, base=new)

    for other in machines.machines():
        if other.base == old:
            update(other.path, changed)


def with_paths(file: Path, old: str, new: str) -> None:
    """Have a JSON file name what is below one folder below another; one that is not there is left so. Raises OSError."""
    if file.exists():
        replace_text(file, json.dumps(_moved(json.loads(file.read_text()), old, new)))


def _moved(value: Any, old: str, new: str) -> Any:
    """Plain data with the paths below one folder below another."""
    if isinstance(value, dict):
        return {key: _moved(inner, old, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [_moved(inner, old, new) for inner in value]
    return value.replace(old, new) if isinstance(value, str) else value
