"""Shell text taken apart into commands without running any of it: continuation lines, quotes, comments, plain variables.

Source: POSIX.1-2017, *Shell Command Language*, for what is read; substitutions of commands are left as they are written.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections import deque
from collections.abc import Iterator

from tinamou.errors import SpecError
from tinamou.late import dataclass

__all__ = ["Command", "commands"]

_SYNTAX = frozenset(["if", "then", "elif", "else", "fi", "while", "until", "do", "done", "esac", "!", "{", "}"])
"""Words of the shell that are no command, and before which none has begun."""
_DECLARING = ("export", "local", "declare", "readonly", "typeset")
_ASSIGNED = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{(\w+)(\[[@*]])?(?::?-([^{}]*))?\})")
_SUBSTITUTED = re.compile(r"\$\(\([^()]*\)\)|\$\([^()]*\)|`[^`]*`")
_CLOSING = "\"'`)"
_MOST = 1 << 19
"""Characters that are taken apart in all: a line that goes on is taken apart again with what comes to it."""
_MOST_COMMANDS = 4096
_DEEPEST = 8
"""Substitutions within each other."""
_SPECIAL = " \t;&|()<>'\"\\"
_HIDDEN = {ord(character): 0xE000 + number for number, character in enumerate(_SPECIAL)}
_SHOWN = {hidden: character for character, hidden in _HIDDEN.items()}


@dataclass(frozen=True)
class Command:
    """One simple command: the number of its first line, its words, and the file its output goes to."""

    line: int
    words: tuple[str, ...]
    target: str = ""


@functools.lru_cache(maxsize=1)  # a source is looked at to tell its kind, and then read
def commands(text: str) -> list[Command]:
    """The simple commands of a script, in order; variables it sets itself are put in. Raises SpecError."""
    script = _Script()
    found = [command for line, tokens in script.statements(text) for command in script.simple(line, tokens)]
    if len(found) > _MOST_COMMANDS or any(len(one.words) > _MOST_COMMANDS for one in found):
        why = f"it has more than {_MOST_COMMANDS} commands, or one of more words"
        raise SpecError("the script is too long to be read", why=why, fix="convert its command line alone")
    return found


class _Script:
    """One script while it is read: the variables it has set, and how much may still be read before it is given up."""

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}
        self._left = _MOST

    def _spend(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            why = f"with its quotes and variables it comes to more than {_MOST} characters"
            raise SpecError("the script is too long to be read", why=why, fix="convert its command line alone")

    def statements(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """Each statement with the number of its first line; lines are joined while a quote or a bracket is open."""
        gathered, first, due = "", 0, True
        lines = iter(enumerate(text.splitlines(), 1))
        for number, line in lines:
            self._spend(1)
            if not gathered:
                first, due = number, True
            said = self._uncommented(gathered, line)
            gathered += said
            due = due or any(character in said for character in _CLOSING)
            if (len(gathered) - len(gathered.rstrip("\\"))) % 2:
                gathered = gathered[:-1]
                self._spend(len(gathered) >> 4)
                continue
            tokens = self._tokens(gathered) if due else None
            if tokens is None or tokens.count("(") > tokens.count(")"):
                gathered, due = gathered + "\n", False
                self._spend(len(gathered) >> 4)
                continue
            yield first, tokens
            gathered = ""
            _skip_document(tokens, lines)
        if gathered.strip():
            tokens = self._tokens(gathered)
            if tokens is None:
                raise SpecError(
                    f"the quote opened in line {first} is never closed", fix="close it, or convert the line alone"
                )
            yield first, tokens

    def _uncommented(self, before: str, line: str) -> str:
        """A line without its comment, which begins where no quote is open."""
        for match in re.finditer(r"(?:^|(?<=\s))#", line):
            if self._tokens(before + line[: match.start()]) is not None:
                return line[: match.start()]
        return line

    def _tokens(self, text: str) -> list[str] | None:
        """The tokens of a statement, None while a quote is open."""
        self._spend(len(text))
        hidden = text
        for _ in range(_DEEPEST):
            outer = hidden
            hidden = _SUBSTITUTED.sub(lambda match: match[0].translate(_HIDDEN), outer)
            if hidden == outer:
                break
        reader = shlex.shlex(hidden, posix=True, punctuation_chars=";&|()<>")
        reader.whitespace_split, reader.commenters = True, ""
        try:
            return [token.translate(_SHOWN) for token in reader]
        except ValueError:
            return None

    def simple(self, line: int, tokens: list[str]) -> Iterator[Command]:
        """The simple commands of a statement."""
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
                self._assign(assigned, rest)
            elif words or token not in _SYNTAX:
                words += self._expanded(token)

    def _assign(self, assigned: re.Match[str], rest: deque[str]) -> None:
        name, more, value = assigned.groups()
        values = self._expanded(value, split=False) if value else []
        if not value and rest[0] == "(":
            rest.popleft()
            while not (word := rest.popleft()).startswith(")") and word != ";":
                values += self._expanded(word)
        if more:
            self._known.setdefault(name, []).extend(values)
        else:
            self._known[name] = values

    def _expanded(self, token: str, *, split: bool = True) -> list[str]:
        """A token with the variables it holds put in; one that is nothing but a list of options becomes several words."""
        self._spend(len(token) >> 4)
        whole = _VARIABLE.fullmatch(token)
        name = (whole[1] or whole[2]) if whole else ""
        if whole and name in self._known:
            found = self._known[name]
            self._spend(sum(map(len, found)) + len(found))
            values = [" ".join(found)] if whole[3] == "[*]" else found
            lone = len(values) == 1 and not whole[3] and values[0].startswith("-")
            return _split(values[0]) if split and lone else list(values)

        def value(match: re.Match[str]) -> str:
            found = self._known.get(match[1] or match[2])
            if found is None:
                return match[4] if match[4] is not None else match[0]
            self._spend(sum(map(len, found)) + len(found))
            return " ".join(found)

        return [_VARIABLE.sub(value, token)]


def _split(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError:  # a quote in it is open
        return [value]


def _skip_document(tokens: list[str], lines: Iterator[tuple[int, str]]) -> None:
    """Pass over the text that is the input of a command (``<<EOF``)."""
    at = tokens.index("<<") if "<<" in tokens[:-1] else None
    if at is not None:
        end = tokens[at + 1].removeprefix("-")
        for _, line in lines:
            if line.strip() == end:
                return
