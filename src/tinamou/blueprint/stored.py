"""Plans as plain data and back: what a checkpoint keeps of the machine it was taken of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinamou import late
from tinamou.blueprint.element import Element, Flag, Why
from tinamou.blueprint.net_steps import ReservePort
from tinamou.blueprint.plan import Calls, Confinement, Contribution, Plan, Wall
from tinamou.blueprint.steps import (
    BuildIso,
    CopyFile,
    CreateImage,
    CreateOverlay,
    EnrollKeys,
    HandOver,
    LoadProfiles,
    MakeCgroup,
    MakeDir,
    MakeSshKey,
    SetUpTpm,
    StartHelper,
    Step,
    WriteText,
)

_INSIDE = (
    *(BuildIso, CopyFile, CreateImage, CreateOverlay, EnrollKeys, HandOver, LoadProfiles, MakeCgroup),
    *(MakeDir, MakeSshKey, ReservePort, SetUpTpm, WriteText),
)
"""Steps that leave nothing outside the machine's folder and QEMU, and the control group, of which a fork gets its own."""

__all__ = ["plain", "plan_from", "plugged", "unplugged"]


def plain(plan: Plan) -> dict[str, Any]:
    """The plan as JSON can say it, but for notes and pinning; of the steps only open files, helpers, groups a copy has too.

    ``outside`` says what the machine has beside its folder, its QEMU and these helpers.
    """
    steps = [_flat(step) for step in plan.steps if isinstance(step, HandOver)]
    helpers = [_flat(step) for step in plan.steps if isinstance(step, StartHelper) and step.travels]
    outside = [_described(step) for step in plan.steps if _is_outside(step)]
    whole = {field.name: getattr(plan, field.name) for field in late.fields(plan)}
    groups = [_flat(step) for step in plan.steps if isinstance(step, MakeCgroup)]
    lists = {name: [_flat(one) for one in whole[name]] for name in ("elements", "flags")}
    confinement = late.asdict(plan.confinement)
    return {
        **whole,
        **lists,
        "steps": steps,
        "helpers": helpers,
        "groups": groups,
        "outside": outside,
        "notes": [],
        "pinning": None,
        "confinement": confinement,
    }


def plugged(data: Mapping[str, Any], part: Contribution) -> dict[str, Any]:
    """What `plain` wrote, with a part that was plugged in since."""
    elements = [*data["elements"], *(_flat(one) for one in part.elements)]
    steps = [*data["steps"], *(_flat(step) for step in part.steps if isinstance(step, HandOver))]
    outside = [*data["outside"], *(_described(step) for step in part.steps if not isinstance(step, _INSIDE))]
    return {**data, "elements": elements, "steps": steps, "outside": outside}


def unplugged(data: Mapping[str, Any], part: Contribution) -> dict[str, Any]:
    """What `plain` wrote, without a part that was unplugged since."""
    gone = {one.id for one in part.elements}
    paths = {step.path for step in part.steps if isinstance(step, HandOver)}
    outside = list(data["outside"])
    for step in part.steps:
        if _described(step) in outside:
            outside.remove(_described(step))
    elements = [one for one in data["elements"] if one["props"].get("id") not in gone]
    return {**data, "elements": elements, "steps": [s for s in data["steps"] if s["path"] not in paths], "outside": outside}


def _flat(one: Any) -> dict[str, Any]:
    """The fields of a dataclass, not copied: `late.asdict` would take longer than everything else here together."""
    values = ((field.name, getattr(one, field.name)) for field in late.fields(one))
    return {name: _flat(value) if isinstance(value, Why) else value for name, value in values}


def _is_outside(step: Step) -> bool:
    return not isinstance(step, _INSIDE) and not (isinstance(step, StartHelper) and step.travels)


def _described(step: Step) -> str:
    """What was asked for, by the field it was asked by, and why it is needed."""
    what = step.name if isinstance(step, StartHelper) else step.why.reason
    return f"{step.why.asked_by.removeprefix('spec ')} ({what})"


def plan_from(data: Mapping[str, Any]) -> Plan:
    """The plan that `plain` wrote. Raises KeyError, TypeError for anything else."""
    known = {field.name for field in late.fields(Plan)}
    return Plan(
        **{
            **{name: value for name, value in data.items() if name in known},
            "elements": tuple(Element(**{**one, "why": Why(**one["why"])}) for one in data["elements"]),
            "flags": tuple(Flag(**{**one, "why": Why(**one["why"])}) for one in data["flags"]),
            "steps": (
                *(_helper(one) for one in data.get("helpers", ())),
                *(_hand_over(one) for one in data["steps"]),
                *(MakeCgroup(**{**one, "why": Why(**one["why"])}) for one in data.get("groups", ())),
            ),
            "notes": (),
            "confinement": _confinement(data["confinement"]),
        }
    )


def _confinement(data: Mapping[str, Any]) -> Confinement:
    """Older versions wrote the identity alone."""
    lists = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
    calls = tuple(Calls(one["group"], Why(**one["why"])) for one in data.get("calls", ()))
    return Confinement(**{**data, **lists, "walls": tuple(Wall(**wall) for wall in data.get("walls", ())), "calls": calls})


def _hand_over(data: Mapping[str, Any]) -> HandOver:
    """Older versions wrote a ``source`` too, which a fork's memory was filled from."""
    return HandOver(**{**{key: value for key, value in data.items() if key != "source"}, "why": Why(**data["why"])})


def _helper(data: Mapping[str, Any]) -> StartHelper:
    """Older versions wrote a ``prefix`` too: a shell that made a folder read only."""
    words = {key: tuple(data[key]) for key in ("argv", "namespaces", "calls", "landlock") if key in data}
    kept = {key: value for key, value in data.items() if key != "prefix"}
    return StartHelper(**{**kept, "why": Why(**data["why"]), **words})
