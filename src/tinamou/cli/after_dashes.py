"""The guest's command: everything after the first ``--`` is for the guest and never read as an option of tinamou's."""

from __future__ import annotations

from collections.abc import Sequence

words: list[str] | None = None
"""What stood after ``--``, None when there was no ``--``."""


def split(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """``["run", "--", "uname"]`` → ``(["run"], ["uname"])``."""
    if "--" not in argv:
        return list(argv), None
    at = list(argv).index("--")
    return list(argv[:at]), list(argv[at + 1 :])
