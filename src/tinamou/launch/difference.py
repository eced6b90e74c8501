"""What one plan has and another has not, line by line, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Literal

from tinamou.blueprint import LeaseCpus, Plan, ReserveHugepages, Step, Why
from tinamou.late import dataclass
from tinamou.launch.argv import spelled

__all__ = ["Difference", "differences", "step_target"]

Line = tuple[str, Why]


@dataclass(frozen=True)
class Difference:
    """A line of a plan that is gone (``-``) or new (``+``): what it is, who asked for it, and why."""

    sign: Literal["-", "+"]
    line: str
    asked_by: str
    reason: str


def differences(before: Plan, after: Plan) -> tuple[Difference, ...]:
    """The host steps, arguments of QEMU, walls and remarks that differ, in the order of the plans."""
    return tuple(one for old, new in zip(_lines(before), _lines(after), strict=True) for one in _between(old, new))


def _between(old: list[Line], new: list[Line]) -> Iterator[Difference]:
    matcher = SequenceMatcher(None, [line for line, _ in old], [line for line, _ in new], autojunk=False)
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag != "equal":
            yield from (Difference("-", line, why.asked_by, why.reason) for line, why in old[a:b])
            yield from (Difference("+", line, why.asked_by, why.reason) for line, why in new[c:d])


def _lines(plan: Plan) -> tuple[list[Line], list[Line], list[Line], list[Line]]:
    head = f"{plan.arch} on {plan.machine_type}, {plan.accel}, by {plan.binary}"
    steps = [(f"{type(step).__name__} {step_target(step)}".rstrip(), step.why) for step in plan.steps]
    walls = [
        (f"{wall.name} {'stands' if wall.stands else 'does NOT stand'}", Why("walls", wall.why))
        for wall in plan.confinement.walls
    ]
    calls = [(f"system calls: {one.group}", one.why) for one in plan.confinement.calls]
    words = [(" ".join(words), why) for words, why in spelled(plan)]
    notes = [(note.text, note.why) for note in plan.notes]
    return [(head, Why("planner", "what it runs on"))], [*steps, *walls, *calls], words, notes


def step_target(step: Step) -> str:
    """What a step is about, in a word or two."""
    if isinstance(step, LeaseCpus):
        return str(step.cpus)
    if isinstance(step, ReserveHugepages):
        return f"{step.count} of {step.page}" + ("" if step.node is None else f" on node {step.node}")
    return str(getattr(step, "path", getattr(step, "name", "")))
