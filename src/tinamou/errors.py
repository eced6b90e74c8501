"""Every error tinamou raises: what happened, why, and what to do about it; one family per stage, one exit code per family.

::

    TinamouError
     ├── SpecError      110   what the user wrote cannot be a machine
     ├── ProbeError     111   the host or the QEMU binary could not be examined
     ├── PlanError      112   the request and the facts do not fit together
     ├── PrepareError   113   the host could not be made ready
     ├── LaunchError    114   QEMU did not start, or died at once
     ├── ControlError   115   QEMU does not answer, or refused a command
     ├── GuestError     116   the guest did not get to the point where it answers
     │    ├── TimeLimitError 124   a command in the guest took longer than it was given
     │    └── NoCommandError 127   the guest has no such command, or may not run it
     ├── ImageError     117   an image is missing, damaged or not what it claims
     ├── StateError     118   the state directory and the request do not fit together
     └── HostError      120   another host does not answer, or not as it should
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from tinamou.late import dataclass

__all__ = [
    "ControlError",
    "GuestError",
    "HostError",
    "ImageError",
    "LaunchError",
    "NoCommandError",
    "PlanError",
    "PrepareError",
    "ProbeError",
    "Problem",
    "SpecError",
    "StateError",
    "TimeLimitError",
    "TinamouError",
    "error_from",
    "if_full",
]


_LONGEST = 500
"""Characters of a value in a message; bits of a number."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (``cpu.count``), the value found, the reason, the fix."""

    path: str
    value: object
    reason: str
    fix: str = ""

    def __str__(self) -> str:
        shown = "" if self.value is None else f" = {_brief(self.value)}"
        fix = f" — {self.fix}" if self.fix else ""
        return f"{self.path}{shown}: {self.reason}{fix}"


class TinamouError(Exception):
    """Base of all errors.

    ``what`` happened in one sentence, ``why`` (the cause, when known), ``fix`` (what the user can do), ``problems`` (all
    of them at once, where several things are wrong), ``evidence`` (named texts such as the tail of a log).
    """

    stage: ClassVar[str] = "tinamou"
    code: ClassVar[int] = 119

    def __init__(
        self,
        what: str,
        *,
        why: str = "",
        fix: str = "",
        problems: Iterable[Problem] = (),
        evidence: dict[str, str] | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.evidence: dict[str, str] = evidence or {}

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  {problem}" for problem in self.problems]
        if self.why:
            lines.append(f"why: {self.why}")
        for name, text in self.evidence.items():
            if text.strip():
                lines += [f"{name}:", *(f"  | {line}" for line in text.rstrip().splitlines())]
        if self.fix:
            lines.append(f"fix: {self.fix}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """The error as plain data, for ``--json``."""
        return {
            "error": self.what,
            "stage": self.stage,
            "code": self.code,
            "why": self.why,
            "fix": self.fix,
            "problems": [
                {"path": p.path, "value": _plain(p.value), "reason": p.reason, "fix": p.fix} for p in self.problems
            ],
            "evidence": self.evidence,
        }


def error_from(data: Any) -> TinamouError:
    """The error that `TinamouError.to_json` described, of the same family; one that says so of what describes none."""
    families: list[type[TinamouError]] = [TinamouError, *TinamouError.__subclasses__(), *GuestError.__subclasses__()]
    try:
        kind = next((one for one in families if one.code == data["code"]), TinamouError)
        problems = [Problem(str(p["path"]), p["value"], str(p["reason"]), str(p["fix"])) for p in data["problems"]]
        what, why, fix = (str(data[name]) for name in ("error", "why", "fix"))
        evidence = {str(name): str(text) for name, text in data["evidence"].items()}
    except (KeyError, TypeError, AttributeError):
        return TinamouError("it failed, and did not say how", why=_brief(data))
    return kind(what, why=why, fix=fix, problems=problems, evidence=evidence)


_FULL = ("No space left", "Disk quota exceeded", "File too large")


def if_full(why: str, then: str = "do it again; nothing is lost") -> str:
    """The fix for what failed because the host had no room; nothing where ``why`` tells another cause."""
    return f"free some space, then {then}" if any(text in why for text in _FULL) else ""


def _plain(value: object) -> object:
    simple = isinstance(value, str | int | float | bool | None)
    return value if simple and not (isinstance(value, int) and value.bit_length() > _LONGEST) else _brief(value)


def _brief(value: object) -> str:
    """A value as a line of a message has room for it, whatever somebody wrote there."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep; a number of too many digits
        return f"a value too large to be shown ({type(value).__name__})"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


class SpecError(TinamouError):
    """What the user wrote cannot be a machine."""

    stage = "spec"
    code = 110


class ProbeError(TinamouError):
    """The host or the QEMU binary could not be examined."""

    stage = "probe"
    code = 111


class PlanError(TinamouError):
    """The request and the facts do not fit together."""

    stage = "plan"
    code = 112


class PrepareError(TinamouError):
    """The host could not be made ready; whatever was done has been undone."""

    stage = "prepare"
    code = 113


class LaunchError(TinamouError):
    """QEMU did not start, or died at once."""

    stage = "launch"
    code = 114


class ControlError(TinamouError):
    """QEMU does not answer on QMP, or refused a command."""

    stage = "control"
    code = 115


class GuestError(TinamouError):
    """The guest did not get to the point where it answers, or a guest operation failed."""

    stage = "guest"
    code = 116


class TimeLimitError(GuestError):
    """A command in the guest took longer than it was given; the number is that of timeout(1)."""

    code = 124


class NoCommandError(GuestError):
    """The guest has no such command, or may not run it; the number is that of a shell."""

    code = 127


class ImageError(TinamouError):
    """An image is missing, damaged or not what it claims to be."""

    stage = "image"
    code = 117


class StateError(TinamouError):
    """The state directory and the request do not fit together (a name that runs already, an unknown machine)."""

    stage = "state"
    code = 118


class HostError(TinamouError):
    """Another host does not answer, or is not what it should be."""

    stage = "host"
    code = 120
