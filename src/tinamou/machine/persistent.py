"""What is not done to a machine whose guest writes into persistent memory (pmem): a file that is none of its disks."""

from __future__ import annotations

from tinamou.errors import StateError
from tinamou.state.record import Record

__all__ = ["refuse", "written"]


def written(record: Record) -> str:
    """The files that its guest writes as memory, now or from its next start on; empty where it writes none."""
    every = [record.next_spec, *([record.spec] if record.running else [])]
    descriptions = [one for one in every if one.get("pmem")]
    if not descriptions:
        return ""
    from tinamou.spec import load_spec

    files = (one.path for spec in descriptions for one in load_spec(spec).pmem if not one.readonly)
    return ", ".join(dict.fromkeys(files))


def refuse(record: Record, what: str, lacks: str) -> None:
    """Raises StateError for a machine that writes to some: it cannot be ``what``, because that ``lacks`` something."""
    if paths := written(record):
        why = f"its guest writes to {paths} as persistent memory (pmem), which is no disk: {lacks}"
        fix = (
            f"take it out (tinamou set {record.name} pmem=, in effect from its next start on), or set readonly = true in it"
        )
        raise StateError(f"{record.name} cannot be {what}", why=why, fix=fix)
