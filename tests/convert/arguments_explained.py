"""Why QEMU's arguments differ between libvirt and tinamou for the same machine: a rule for each difference there is.

A line of arguments_explained.tsv is a rule: the side that has the fact (``+`` libvirt alone, ``-`` tinamou alone); the fact;
a note that must have been given, where ``{1}`` is the fact's first group (a bare ``-``: libvirt's or tinamou's own way with
every machine, whatever the description says); and the reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_TABLE = Path(__file__).with_suffix(".tsv").read_text().splitlines()
RULES: list[list[str]] = [one.split("\t") for one in _TABLE[1:]]


def unexplained(theirs: Sequence[str], ours: Sequence[str], notes: Sequence[str]) -> list[str]:
    """The differences that no rule explains, with their side."""
    sides = (("+", theirs), ("-", ours))
    return [f"{side}{fact}" for side, found in sides for fact in found if not _explained(side, fact, notes)]


def _explained(side: str, fact: str, notes: Sequence[str]) -> bool:
    for kept, pattern, note, _ in RULES:
        if kept == side and (match := re.fullmatch(pattern, fact)):
            wanted = re.sub(r"\{(\d)\}", lambda one, match=match: re.escape(match[int(one[1])] or ""), note)
            if note == "-" or any(re.search(wanted, one) for one in notes):
                return True
    return False
