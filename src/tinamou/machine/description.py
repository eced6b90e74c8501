"""A machine's description changed part by part: that of a machine that runs, and the one it has from its next start on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinamou import late
from tinamou.snapshots.orphans import is_suspended
from tinamou.spec import MachineSpec, dump_spec, load_spec
from tinamou.state.record import Record, update

__all__ = ["describe", "describe_later", "settled"]

Change = Callable[[MachineSpec], MachineSpec]


def describe(record: Record, change: Change, *, later: bool = True) -> Record:
    """Change the newest description, and the one from the next start on (unless ``later`` is false), each as it is now.

    Returns the record as it is then. Raises SpecError for what is no description, StateError for a machine that is gone;
    nothing is written then.
    """

    def changed(newest: Record) -> Record:
        ahead = newest.later if newest.later or later else newest.spec
        ahead = _changed(ahead, change) if ahead and later else ahead
        return _tidy(late.replace(newest, spec=_changed(newest.spec, change), later=ahead))

    return update(record.path, changed)


def describe_later(record: Record, change: Change) -> Record:
    """Change the description from the next start on, which of a machine that is off is the only one. As `describe`."""

    def changed(newest: Record) -> Record:
        now = _changed(newest.next_spec, change)
        if newest.running or newest.owned or is_suspended(newest):
            return _tidy(late.replace(newest, later=now))
        return late.replace(newest, spec=now, later={})

    return update(record.path, changed)


def settled(record: Record) -> Record:
    """The record of a machine that is about to be started: what was to come has come."""
    if not record.later:
        return record
    return update(record.path, lambda newest: late.replace(newest, spec=newest.next_spec, later={}))


def _changed(data: dict[str, Any], change: Change) -> dict[str, Any]:
    spec = dump_spec(change(load_spec(data)))
    load_spec(spec)
    return spec


def _tidy(record: Record) -> Record:
    """The same, with nothing to come where that is what is there already."""
    return late.replace(record, later={}) if record.later == record.spec else record
