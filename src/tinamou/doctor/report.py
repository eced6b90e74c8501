"""The doctor's findings as a table for people, as JSON for programs, and as an exit status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinamou.doctor.finding import Finding, Severity
from tinamou.system.shown import visible

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["exit_status", "summary", "table", "to_json"]

_STYLES = {
    Severity.GOOD: "green",
    Severity.INFO: "cyan",
    Severity.WARNING: "yellow",
    Severity.BAD: "bold red",
    Severity.UNKNOWN: "dim",
}


def table(findings: Sequence[Finding]) -> Table:
    """One row per finding, the fix below the evidence."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("", "Check", "What was found"):
        drawn.add_column(name, overflow="fold")
    for finding in findings:
        style = _STYLES[finding.severity]
        text = Text(visible(finding.evidence))
        if finding.fix:
            text.append(visible(f"\n→ {finding.fix}"), style="dim")
        drawn.add_row(Text(str(finding.severity), style=style), Text(visible(finding.title)), text)
    return drawn


def summary(findings: Sequence[Finding]) -> str:
    """``31 checks: 20 good, 6 info, 3 warning, 0 bad, 2 unknown``."""
    counts = [f"{sum(f.severity is severity for f in findings)} {severity}" for severity in Severity]
    return f"{len(findings)} checks: {', '.join(counts)}"


def to_json(findings: Sequence[Finding]) -> dict[str, object]:
    """Findings and exit status as plain data."""
    return {"status": exit_status(findings), "findings": [finding.to_json() for finding in findings]}


def exit_status(findings: Sequence[Finding]) -> int:
    """0 when nothing is bad, else 1; warnings and what is unknown do not count."""
    return int(any(finding.severity is Severity.BAD for finding in findings))
