"""Shell text taken apart into commands without running any of it: continuation lines, quotes, comments, plain variables.

Source: POSIX.1-2017, *Shell Command Language*, for what is read; substitutions of commands are left as they are written.
"""

from __future__ import annotations

import re
import shlex
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from tinamou.errors import SpecError

__all__ = ["Command", "commands"]

_SYNTAX = frozenset(["if", "then", "elif", "else", "fi", "while", "until", "do", "done", "esac", "!", "{", "}"])
"""Words of the shell that are no command, and before which none has begun."""
_DECLARING = ("export", "local", "declare", "readonly", "typeset")
_ASSIGNED = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{(\w+)(\[[@*]])?(?::?-([^{}]*))?\})")
_SUBSTITUTED = re.compile(r"\$\(\([^()]*\)\)|\$\([^()]*\)|`[^`]*`")
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
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
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
        _skip_document(tokens, lines)
    if gathered.strip():
        tokens = _tokens(gathered)
        if tokens is None:
            raise SpecError(f"the quote opened in line {first} is never closed", fix="close it, or convert the line alone")
        yield first, tokens


def _skip_document(tokens: list[str], lines: Iterator[tuple[int, str]]) -> None:
    """Pass over the text that is the input of a command (``<<EOF``)."""
    at = tokens.index("<<") if "<<" in tokens[:-1] else None
    if at is not None:
        end = tokens[at + 1].removeprefix("-")
        for _, line in lines:
            if line.strip() == end:
                return


def _uncommented(before: str, line: str) -> str:
    """A line without its comment, which begins where no quote is open."""
    for match in re.finditer(r"(?:^|(?<=\s))#", line):
        if _tokens(before + line[: match.start()]) is not None:
            return line[: match.start()]
    return line


def _tokens(text: str) -> list[str] | None:
    """The tokens of a statement, None while a quote is open."""
    hidden, outer = text, ""
    while hidden != outer:
        outer = hidden
        hidden = _SUBSTITUTED.sub(lambda match: match[0].translate(_HIDDEN), outer)
    reader = shlex.shlex(hidden, posix=True, punctuation_chars=";&|()<>")
    reader.whitespace_split, reader.commenters = True, ""
    try:
        return [token.translate(_SHOWN) for token in reader]
    except ValueError:
        return None


def _simple(line: int, tokens: list[str], known: dict[str, list[str]]) -> Iterator[Command]:
    words: list[str] = []
    target = ""
    rest = deque([*tokens, ";", ";"])
    while rest:
        token = rest.popleft()
        assigned = _ASSIGNED.fullmatch(token)
        if token and set(token) <= set(";&|()"):
            # One word before a closing bracket is the label of a case.
            if words and (len(words) > 1 or not token.startswith(")")):
                yield Command(line, tuple(words), target)
            words, target = [], ""
        elif token and set(token) <= set("<>&"):
            file = rest.popleft()
            target = file if ">" in token else target
            if words[1:] and words[-1] == "2":
                words.pop()
        elif assigned and (not words or words[0] in _DECLARING):
            _assign(assigned, rest, known)
        elif words or token not in _SYNTAX:
            words += _expanded(token, known)


def _assign(assigned: re.Match[str], rest: deque[str], known: dict[str, list[str]]) -> None:
    name, more, value = assigned.groups()
    values = _expanded(value, known, split=False) if value else []
    if not value and rest[0] == "(":
        rest.popleft()
        while not (word := rest.popleft()).startswith(")") and word != ";":
            values += _expanded(word, known)
    known[name] = [*known.get(name, []), *values] if more else values


def _expanded(token: str, known: dict[str, list[str]], *, split: bool = True) -> list[str]:
    """A token with the variables it holds put in; one that is nothing but a list of options becomes several words."""
    whole = _VARIABLE.fullmatch(token)
    name = (whole[1] or whole[2]) if whole else ""
    if whole and name in known:
        values = [" ".join(known[name])] if whole[3] == "[*]" else known[name]
        lone = len(values) == 1 and not whole[3] and values[0].startswith("-")
        return shlex.split(values[0]) if split and lone else list(values)

    def value(match: re.Match[str]) -> str:
        found = known.get(match[1] or match[2])
        return " ".join(found) if found is not None else match[4] if match[4] is not None else match[0]

    return [_VARIABLE.sub(value, token)]
