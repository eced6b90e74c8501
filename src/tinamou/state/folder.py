"""What a machine's folder says of how it was started: its plan and its image, read typed and replaced under its lock."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tinamou import late
from tinamou.errors import StateError
from tinamou.facts import ImageFacts, files
from tinamou.state.record import Record, locked
from tinamou.system.plain_file import read_own
from tinamou.system.replaced import replace_text
from tinamou.units import Size

if TYPE_CHECKING:
    from tinamou.blueprint import Plan

__all__ = ["image_of", "plan_data", "plan_of", "update_plan", "write_image", "write_plan"]


_MOST = 64 << 20


def plan_of(record: Record) -> Plan:
    """The plan a machine was started from, with what was plugged in since. Raises StateError."""
    from tinamou.blueprint.stored import plan_from

    try:
        return plan_from(plan_data(record))
    except (KeyError, TypeError) as error:
        raise _not_written(record, error) from error


def plan_data(record: Record) -> dict[str, Any]:
    """The same as plain data (`tinamou.blueprint.stored.plain`). Raises StateError."""
    try:
        return dict(json.loads(read_own(record.file(files.PLAN), most=_MOST)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _not_written(record, error) from error


def _not_written(record: Record, error: Exception) -> StateError:
    fix = f"tinamou stop {record.name}, tinamou start {record.name}"
    return StateError(f"it is not written down how {record.name} was started", why=repr(error), fix=fix)


def write_plan(record: Record, plan: Plan, beside: Mapping[str, Any] | None = None) -> None:
    """Write down the plan a machine is started from; ``beside`` is kept of other data. Raises OSError."""
    from tinamou.blueprint.stored import plain

    replace_text(record.file(files.PLAN), json.dumps({**(beside or {}), **plain(plan)}))


def update_plan(record: Record, changed: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Change what is written of a machine's plan, under its lock. A machine never started has none. Raises StateError."""
    with locked(record.path):
        if record.file(files.PLAN).exists():
            replace_text(record.file(files.PLAN), json.dumps(changed(plan_data(record))))


def write_image(record: Record, image: ImageFacts) -> None:
    """Write down which image a machine is made from: its disk is an overlay of exactly that one. Raises OSError."""
    replace_text(record.file(files.IMAGE), json.dumps(late.asdict(image)))


def image_of(record: Record) -> ImageFacts:
    """The image a machine was made from. Raises StateError for a machine that was never started."""
    try:
        data = json.loads(read_own(record.file(files.IMAGE), most=_MOST))
        return ImageFacts(**{**data, "size": Size(data["size"]), "boots": tuple(data["boots"])})
    except FileNotFoundError:
        raise StateError(f"machine {record.name} was never started", fix=f"tinamou start {record.name}") from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        path, fix = record.file(files.IMAGE), f"tinamou backup restore, or tinamou rm -f {record.name}"
        raise StateError(f"the image of {record.name} is not known any more", why=f"{path}: {error!r}", fix=fix) from error
