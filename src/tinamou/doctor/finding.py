"""What a check reports."""

from __future__ import annotations

from enum import StrEnum

from tinamou.late import dataclass, replace

__all__ = ["Finding", "Remedy", "Severity", "bad", "good", "info", "unknown", "warning"]


class Severity(StrEnum):
    """``good``: as it should be. ``info``: worth knowing. ``warning``: slower or riskier. ``bad``: something cannot work."""

    GOOD = "good"
    INFO = "info"
    WARNING = "warning"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Remedy:
    """What ``--fix`` does, until the next reboot: write ``value`` into each of ``paths``, or run ``argv``."""

    paths: tuple[str, ...] = ()
    value: str = ""
    argv: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(self.argv) if self.argv else f"write {self.value} to {', '.join(self.paths)}"


@dataclass(frozen=True)
class Finding:
    """One check's outcome: ``evidence`` is what was seen and where, ``fix`` what a person would do."""

    severity: Severity
    evidence: str
    fix: str = ""
    remedy: Remedy | None = None
    check: str = ""
    title: str = ""

    def named(self, check: str, title: str) -> Finding:
        """The same finding under the name of its check."""
        return replace(self, check=check, title=title)

    def to_json(self) -> dict[str, object]:
        """The finding as plain data."""
        return {
            "check": self.check,
            "title": self.title,
            "severity": str(self.severity),
            "evidence": self.evidence,
            "fix": self.fix,
            "remedy": str(self.remedy) if self.remedy else "",
        }


def good(evidence: str) -> Finding:
    """All as it should be."""
    return Finding(Severity.GOOD, evidence)


def info(evidence: str, fix: str = "", remedy: Remedy | None = None) -> Finding:
    """Worth knowing, nothing to do unless something more is wanted."""
    return Finding(Severity.INFO, evidence, fix, remedy)


def warning(evidence: str, fix: str, remedy: Remedy | None = None) -> Finding:
    """Machines run, but slower or with more risk than they need to."""
    return Finding(Severity.WARNING, evidence, fix, remedy)


def bad(evidence: str, fix: str, remedy: Remedy | None = None) -> Finding:
    """Something a user would expect to work cannot work."""
    return Finding(Severity.BAD, evidence, fix, remedy)


def unknown(evidence: str) -> Finding:
    """It could not be found out, and why."""
    return Finding(Severity.UNKNOWN, evidence)
