"""The folder of pools: who keeps which machines waiting; made whole, read, cleared away when its keeper is gone."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.errors import StateError
from tinamou.late import dataclass
from tinamou.state.entries import being_read
from tinamou.system.paths import state_dir
from tinamou.system.plain_file import folder_fault, read_own
from tinamou.system.remove import remove_tree
from tinamou.system.replaced import replace_text
from tinamou.system.spawn import Process, alive

__all__ = ["PoolEntry", "clear", "create", "every", "find", "folder", "pools_dir", "read", "remove", "write"]

UNFINISHED_SECONDS = 60.0
_MOST = 16 << 20


@dataclass(frozen=True)
class PoolEntry:
    """A pool's entry. ``size`` machines wait, ``bound`` is what they may occupy together, as written ("500M").

    ``spec`` describes the machine they are forks of, ``checkpoint`` names the checkpoint instead where the user named one;
    ``key`` stands for the request, as for a warm checkpoint. ``keeper`` is the process that refills it, and before that the
    one that makes it: number and start time. ``timeout`` is how long the guest may take to boot, in seconds.
    """

    name: str
    size: int
    created: float
    keeper: tuple[int, int]
    spec: dict[str, Any] = late.field(default_factory=dict)
    checkpoint: str = ""
    bound: str = ""
    key: str = ""
    timeout: float = 300.0

    @property
    def kept(self) -> bool:
        """Whether its keeper is alive."""
        return alive(Process(*self.keeper))

    @property
    def directory(self) -> Path:
        """Its folder."""
        return folder(self.name)

    @property
    def socket(self) -> Path:
        """Where its keeper hands out machines."""
        return self.directory / "take.sock"


def pools_dir() -> Path:
    """Where the pools' folders are; there need not be any."""
    return state_dir() / "pools"


def folder(name: str) -> Path:
    """The folder of a pool of that name."""
    return pools_dir() / name


def create(entry: PoolEntry) -> None:
    """Make the pool's folder with its entry, as a whole. Raises StateError when the name is taken."""
    part = pools_dir() / f".{entry.name}-{os.getpid()}"
    part.mkdir(mode=0o700, parents=True)
    replace_text(part / "pool.json", _text(entry))
    try:
        part.rename(entry.directory)
    except OSError:
        remove_tree(part)
        fix = f"choose another name, or: tinamou pool rm {entry.name}"
        raise StateError(f"there is a pool {entry.name} already", fix=fix) from None


def write(entry: PoolEntry) -> None:
    """Replace the entry as a whole."""
    replace_text(entry.directory / "pool.json", _text(entry))


def _text(entry: PoolEntry) -> str:
    return json.dumps(late.asdict(entry), indent=1)


def read(name: str) -> PoolEntry | None:
    """The pool of that name, None where there is none. Raises StateError for a damaged entry."""
    with being_read(f"the entry of pool {name}", fix=f"tinamou pool rm {name}"):
        data: dict[str, Any] = json.loads(read_own(folder(name) / "pool.json", most=_MOST))
        return PoolEntry(**{**data, "keeper": tuple(data["keeper"])})
    return None


def find(name: str) -> PoolEntry:
    """The pool of that name. Raises StateError when there is none."""
    entry = read(name) if name and "/" not in name else None
    if entry is None:
        raise StateError(f"there is no pool {name}", fix=f"tinamou pool create {name}, or tinamou pool ls")
    return entry


def every() -> list[PoolEntry]:
    """All pools, by name; damaged ones are left out."""
    found = []
    for path in sorted(pools_dir().glob("[!.]*")):
        with contextlib.suppress(StateError):  # said by `clear`
            if not folder_fault(path) and (entry := read(path.name)) is not None:
                found.append(entry)
    return found


def remove(name: str) -> None:
    """Remove a pool's folder; the entry goes first."""
    (folder(name) / "pool.json").unlink(missing_ok=True)
    remove_tree(folder(name))


def clear() -> list[str]:
    """Remove pools whose keeper is gone, and halves; returns one sentence for each. Their machines were ended before."""
    done = []
    for path in sorted(pools_dir().glob("*")):
        if wrong := folder_fault(path):
            done.append(f"{wrong}: it is left alone")
            continue
        try:
            entry = None if path.name.startswith(".") else read(path.name)
            if entry is None and time.time() - path.stat().st_mtime > UNFINISHED_SECONDS:
                remove_tree(path)
            elif entry is not None and not entry.kept:
                remove(entry.name)
                done.append(f"the keeper of pool {entry.name} was killed; the pool and what waited in it are gone")
        except FileNotFoundError:
            continue
        except StateError as error:
            done.append(f"{error.what}: {error.why}; {error.fix}")
    return done
