"""Shell text taken apart into commands without running any of it: continuation lines, quotes, comments, plain variables.

Source: POSIX.1-2017, *Shell Command Language*, for what is read; substitutions of commands are left as they are written.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from tinamou.errors import SpecError

__all__ = ["Command", "commands"]

_ENDS = {";", "&", "|", "&&", "||", ";;", "|&"}
_ASSIGNED = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{(\w+)(\[[@*]])?(?::?-([^{}]*))?\})")
_SUBSTITUTED = re.compile(r"\$\([^()]*\)|`[^`]*`")
_SPECIAL = " \t;&|()<>'\"\\"
_HIDDEN = {ord(character): 0xE000 + number for number, character in enumerate(_SPECIAL)}
_SHOWN = {hidden: character for character, hidden in _HIDDEN.items()}


@dataclass(frozen=True)
class Command:
    """One simple command: the number of its first line, its words, and the file its output goes to."""

    line: int
    words: tuple[str, ...]
    target: str = ""


def commands(text: str) -> list[Command]:
    """The simple commands of a script, in order; variables it sets itself are put in. Raises SpecError."""
    known: dict[str, list[str]] = {}
    return [command for line, tokens in _statements(text) for command in _simple(line, tokens, known)]


def _statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each statement with the number of its first line; lines are joined while a quote or a bracket is open."""
    gathered, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not gathered:
            first = number
        gathered += _uncommented(gathered, line)
        if re.search(r"(?<!\\)(\\\\)*\\$", gathered):
            gathered = gathered[:-1]
            continue
        tokens = _tokens(gathered)
        if tokens is None or tokens.count("(") > tokens.count(")"):
            gathered += "\n"
            continue
        yield first, tokens
        gathered = ""
    if gathered.strip():
        tokens = _tokens(gathered)
        if tokens is None:
            raise SpecError(f"the quote opened in line {first} is never closed", fix="close it, or convert the line alone")
        yield first, tokens


def _uncommented(before: str, line: str) -> str:
    """A line without its comment, which begins where no quote is open."""
    for match in re.finditer(r"(?:^|(?<=\s))#", line):
        if _tokens(before + line[: match.start()]) is not None:
            return line[: match.start()]
    return line


def _tokens(text: str) -> list[str] | None:
    """The tokens of a statement, None while a quote is open."""
    hidden = _SUBSTITUTED.sub(lambda match: match[0].translate(_HIDDEN), text)
    reader = shlex.shlex(hidden, posix=True, punctuation_chars=";&|()<>")
    reader.whitespace_split, reader.commenters = True, ""
    try:
        return [token.translate(_SHOWN) for token in reader]
    except ValueError:
        return None


def _simple(line: int, tokens: list[str], known: dict[str, list[str]]) -> Iterator[Command]:
    words: list[str] = []
    target = ""
    rest = iter([*tokens, ";"])
    for token in rest:
        assigned = _ASSIGNED.fullmatch(token)
        if token in _ENDS:
            if words:
                yield Command(line, tuple(words), target)
            words, target = [], ""
        elif set(token) <= set("<>&"):
            file = next(rest, "")
            target = file if ">" in token else target
            if words[1:] and words[-1] == "2":
                words.pop()
        elif assigned and not words:
            _assign(assigned, rest, known)
        else:
            words += _expanded(token, known)


def _assign(assigned: re.Match[str], rest: Iterator[str], known: dict[str, list[str]]) -> None:
    name, more, value = assigned.groups()
    values = _expanded(value, known, split=False) if value else []
    if not value and next(rest, ";") == "(":
        for word in itertools.takewhile(")".__ne__, rest):
            values += _expanded(word, known)
    known[name] = [*known.get(name, []), *values] if more else values


def _expanded(token: str, known: dict[str, list[str]], *, split: bool = True) -> list[str]:
    """A token with the variables it holds put in; one that is nothing but a list of options becomes several words."""
    whole = _VARIABLE.fullmatch(token)
    name = (whole[1] or whole[2]) if whole else ""
    if whole and name in known:
        values = known[name]
        lone = len(values) == 1 and not whole[3] and values[0].startswith("-")
        return shlex.split(values[0]) if split and lone else list(values)

    def value(match: re.Match[str]) -> str:
        found = known.get(match[1] or match[2])
        return " ".join(found) if found is not None else match[4] if match[4] is not None else match[0]

    return [_VARIABLE.sub(value, token)]
