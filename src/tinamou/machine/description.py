"""A machine's description changed field by field, so that two commands that change different fields both have their way."""

from __future__ import annotations

from typing import Any

from tinamou import late
from tinamou.spec import dump_spec, load_spec
from tinamou.state.record import Record, update

__all__ = ["describe"]


def describe(record: Record, **parts: Any) -> Record:
    """Set these parts of the newest description (``net``, ``disk``, …) and leave the others as they are now.

    Returns the record as it is then. Raises SpecError for what is no description, StateError for a machine that is gone;
    nothing is written then.
    """

    def changed(newest: Record) -> Record:
        spec = dump_spec(late.replace(load_spec(newest.spec), **parts))
        load_spec(spec)
        return late.replace(newest, spec=spec)

    return update(record.path, changed)
