"""What is said about attacks: a table for a terminal, JSON, and the page docs/reference/attacks.md."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable

from attacks.lasting import WHAT
from attacks.trial import ATTACKS, Outcome

Outcomes = dict[str, list[Outcome]]
"""What became of every way, by who attacked: ``root's qemu``."""


def described() -> dict[str, str]:
    """Every attack's name, and what is tried."""
    return {one.name: one.what for one in ATTACKS} | WHAT


def _counted(words: Iterable[str]) -> str:
    counted = collections.Counter(words)
    return ", ".join(f"{word} ×{number}" if number > 1 else word for word, number in counted.most_common())


def cell(outcomes: list[Outcome]) -> str:
    """One attack by one process, in a few words."""
    by = collections.defaultdict(list)
    for one in outcomes:
        by[one.state].append(one)
    if by["succeeded"]:
        ways = ", ".join(one.way for one in by["succeeded"] if one.way)
        return f"SUCCEEDED: {ways}" if ways else "SUCCEEDED"
    if by["refused"]:
        return _counted(one.by for one in by["refused"])
    if by["by design"]:
        return f"by design: {by['by design'][0].by}"
    return _counted(one.by for one in by["void"]) if by["void"] else "nothing to attack"


def sums(found: Outcomes) -> dict[str, collections.Counter[str]]:
    """How many ways of each state, by who attacked."""
    return {who: collections.Counter(one.state for one in outcomes) for who, outcomes in found.items()}


def text(found: Outcomes) -> str:
    """The table for a terminal: every attack, and below it each process with what refused it."""
    lines = []
    for number, (name, what) in enumerate(described().items(), 1):
        lines.append(f"{number:2} {name}: {what}")
        for who, outcomes in found.items():
            mine = [one for one in outcomes if one.attack == name]
            if mine:
                lines.append(f"     {who:18} {cell(mine)}")
    lines.append("")
    for who, counted in sums(found).items():
        lines.append(f"{who:23} " + ", ".join(f"{number} {state}" for state, number in sorted(counted.items())))
    return "\n".join(lines)


def data(found: Outcomes) -> dict[str, object]:
    """The same for programs."""
    return {
        "attacks": described(),
        "outcomes": {who: [dataclasses.asdict(one) for one in outcomes] for who, outcomes in found.items()},
        "sums": {who: dict(counted) for who, counted in sums(found).items()},
    }


def page(found: Outcomes) -> str:
    """The generated part of the page: a table of attacks and what refuses each, by kind of process."""
    who = list(found)
    lines = ["| # | attack | " + " | ".join(who) + " |", "|---" * (len(who) + 2) + "|"]
    for number, (name, what) in enumerate(described().items(), 1):
        cells = (cell([one for one in found[one_who] if one.attack == name]) for one_who in who)
        lines.append(f"| {number} | {what} | " + " | ".join(each.replace("|", "\\|") for each in cells) + " |")
    return re.sub(r"/tmp/ta\w{8}/", "…/", "\n".join([*lines, ""]))
