"""A host that is left by all its running machines, one after another."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.errors import TinamouError
from tinamou.fleet import hosts
from tinamou.fleet.moving import How, Moved, move
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.state import machines

__all__ = ["Evacuated", "evacuate"]


@dataclass(frozen=True)
class Evacuated:
    """What has gone to another host, and why the others stay, by name."""

    moved: tuple[Moved, ...]
    stay: Mapping[str, str]


async def evacuate(host: str, how: How | None = None, *, progress: Progress = silent) -> Evacuated:
    """Move every machine that runs here to another host, one after another; one that cannot go stays as it is.

    Raises StateError for a host that is not known.
    """
    hosts.find(host)
    moved, stay = [], {}
    for record in machines.machines():
        if record.running:
            try:
                moved.append(await move(record.name, host, how, progress=progress))
            except TinamouError as error:
                stay[record.name] = "; ".join(filter(None, [error.what, *map(str, error.problems), error.why]))
    return Evacuated(tuple(moved), stay)
