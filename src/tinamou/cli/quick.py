"""Reads the plain forms of ``tinamou run`` without the parser's library, whose import takes longer than starting QEMU.

What is not perfectly plain is left to the parser: it alone decides what is wrong, and prints help. A test holds that both
read the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tinamou.cli.options import MachineOptions
from tinamou.late import dataclass

__all__ = ["Asked", "read", "run"]

_SINGLE, _REPEATED, _SWITCHES = (
    {f"--{name.replace('_', '-')}": name for name, kind in MachineOptions.__annotations__.items() if kind in kinds}
    for kinds in (("str | None", "int | None"), ("tuple[str, ...]",), ("bool",))
)
_FLAGS = {"--detach": "detach", "-d": "detach", "--timings": "timings", "--warm": "warm", "--json": "json"}
_NEGATED = {"--no-wait": "wait"}
_SECONDS = {"--timeout": "timeout", "--time-limit": "time_limit"}
_PLAIN = re.compile(r"[A-Za-z0-9_./~][^\x00-\x20\x7f-\uffff]*")


@dataclass(frozen=True)
class Asked:
    """A ``tinamou run``: the image, the options that describe the machine, and those about the run itself."""

    image: str
    options: dict[str, Any]
    about: dict[str, Any]


def read(words: Sequence[str]) -> Asked | None:
    """The run that ``words`` (what stands before ``--``) ask for; None where the parser has to look at it."""
    if not words or words[0] != "run":
        return None
    image = ""
    options: dict[str, Any] = {}
    about: dict[str, Any] = {}
    rest = iter(words[1:])
    for word in rest:
        if word in _FLAGS and _FLAGS[word] not in about:
            about[_FLAGS[word]] = True
        elif word in _NEGATED and _NEGATED[word] not in about:
            about[_NEGATED[word]] = False
        elif word in _SWITCHES and _SWITCHES[word] not in options:
            options[_SWITCHES[word]] = True
        elif word in _SINGLE or word in _REPEATED or word in _SECONDS:
            value = _value(word, next(rest, ""))
            if value is None or _SINGLE.get(word, word) in options or _SECONDS.get(word) in about:
                return None
            if word in _SECONDS:
                about[_SECONDS[word]] = value
            elif word in _REPEATED:
                options[_REPEATED[word]] = (*options.get(_REPEATED[word], ()), value)
            else:
                options[_SINGLE[word]] = value
        elif image or not _PLAIN.fullmatch(word):
            return None
        else:
            image = word
    return Asked(image, options, about)


def _value(option: str, text: str) -> object | None:
    if not _PLAIN.fullmatch(text):
        return None
    if option == "--cpus":
        return int(text) if re.fullmatch(r"[1-9][0-9]{0,3}", text) else None
    if option in _SECONDS:
        return float(text) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", text) else None
    return text


def run(asked: Asked, words: list[str] | None) -> int:
    """Do it; ``words`` are the guest's command. Returns the exit status."""
    from tinamou.cli import running
    from tinamou.cli.described import described

    warm = asked.about.pop("warm", False)
    spec = described(asked.image, asked.options, apart=warm)
    return running.run(spec, words, running.How(**asked.about), warm=warm)
