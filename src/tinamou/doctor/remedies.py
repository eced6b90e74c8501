"""Applies what ``--fix`` may apply; nothing of it survives a reboot, and each step says what it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinamou.doctor.finding import Finding, Remedy, Severity
from tinamou.errors import PrepareError
from tinamou.system.exec import CommandError, run
from tinamou.system.rooted import Rooted

__all__ = ["apply"]


def apply(findings: Sequence[Finding], files: Rooted, command: Callable[[Sequence[str]], str] = run) -> list[str]:
    """Applies the remedy of every finding that has one and is a warning or worse; returns a line for each."""
    wanted = [f for f in findings if f.remedy and f.severity in (Severity.WARNING, Severity.BAD)]
    return [f"{finding.title}: {_apply(finding.remedy, files, command)}" for finding in wanted if finding.remedy]


def _apply(remedy: Remedy, files: Rooted, command: Callable[[Sequence[str]], str]) -> str:
    try:
        if remedy.argv:
            command(remedy.argv)
            return f"done: {remedy}"
        before = [files.read(path) or "" for path in remedy.paths]
        for path in remedy.paths:
            files.write(path, remedy.value)
    except (OSError, CommandError) as error:
        raise PrepareError(f"could not {remedy}", why=str(error), fix="run as root, or apply it by hand") from error
    return f"done: {remedy} (was {', '.join(dict.fromkeys(before))})"
