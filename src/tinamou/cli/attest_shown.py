"""Verdicts of the verbs below ``attest``: judged, printed, and as an exit status."""

from __future__ import annotations

from pathlib import Path

from tinamou import attest, late
from tinamou.attest import QUESTIONS, Known, MalformedError, Verdict
from tinamou.cli.attest_given import Given
from tinamou.errors import SpecError

__all__ = ["judged_by", "show", "status_of", "with_collected"]

_STATUS = {"genuine": 20, "fresh": 21, "expected": 22, "policy": 23, "tcb": 24}
_NOT_JUDGED = 25


def judged_by(report: bytes, told: Known) -> Verdict:
    """The five answers about a report. Raises SpecError."""
    try:
        return attest.verify(report, told)
    except attest.MalformedError as error:
        raise SpecError("this is no report", why=str(error)) from None


def with_collected(given: Given, report: bytes) -> Given:
    """What was given, and what attest certificates got for this report where nothing of the kind was."""
    from tinamou.operations.collecting import folder_of

    try:
        folder = folder_of(report)
    except (MalformedError, SpecError):
        return given
    file: Path = folder / "collateral.json"
    if given.certs is None and (folder / "chain.pem").is_file():
        return late.replace(given, certs=folder)
    if given.collateral is None and file.is_file():
        return late.replace(given, collateral=file)
    return given


def status_of(verdict: Verdict) -> int:
    """The exit status: 0 where all is proven, that of the first no, or that of nothing wrong but not all judged."""
    wrong = [_STATUS[one.question] for one in verdict.answers if one.answer == "no"]
    return wrong[0] if wrong else 0 if verdict.proven else _NOT_JUDGED


def show(verdict: Verdict) -> None:
    """Print a verdict for people."""
    print(f"a report of {verdict.kind}")
    for name, value in verdict.says.items():
        print(f"  {name:<16} {value}")
    for one in verdict.answers:
        print(f"\n{one.question}: {one.answer.upper()}" + (f", {one.why}" if one.why else f": {QUESTIONS[one.question]}"))
        for line in one.evidence:
            print(f"  {line}")
        if one.fix:
            print(f"  fix: {one.fix}")
