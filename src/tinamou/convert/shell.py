"""Shell text taken apart into commands without running any of it: continuation lines, quotes, comments, plain variables.

One pass over the text, then one over its words with the variables the script sets. Source: POSIX.1-2017, *Shell Command
Language*, and bash's manual for arrays; substitutions of commands are left as they are written.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator

from tinamou.convert.shell_words import Piece, Token, tokens
from tinamou.errors import SpecError
from tinamou.late import dataclass

__all__ = ["Command", "commands", "settings"]

_SYNTAX = frozenset(["if", "then", "elif", "else", "fi", "while", "until", "do", "done", "esac", "!", "{", "}"])
"""Words of the shell that are no command, and before which none has begun."""
_DECLARING = ("export", "local", "declare", "readonly", "typeset")
_SHELLS = ("sh", "bash", "dash", "zsh", "ksh")
_BEFORE = ("exec", "sudo", "doas", "command", "nohup")
_MOST = 8 << 20
"""Characters that variables may come to in all."""
_MOST_COMMANDS, _MOST_WORDS = 1 << 14, 4096
_HELD = str.maketrans(" \t\r\n", "\ue000\ue001\ue002\ue003")
_FREE = str.maketrans("\ue000\ue001\ue002\ue003", " \t\r\n")
"""Blanks in the substitution of a command while it is in a variable: no word ends there."""
_DEEPEST = 8
"""Commands within the text of others (eval, ``sh -c``)."""


@dataclass(frozen=True)
class Command:
    """One simple command: the number of its first line, its words, and the file its output goes to."""

    line: int
    words: tuple[str, ...]
    target: str = ""


@functools.lru_cache(maxsize=1)  # a source is looked at to tell its kind, and then read
def commands(text: str) -> list[Command]:
    """The simple commands of a script, in order; variables it sets itself are put in. Raises SpecError."""
    return _Script().read(text)


def settings(text: str) -> tuple[dict[str, list[str]], list[Command]]:
    """The variables a script has set at its end, and its commands."""
    script = _Script()
    found = script.read(text)
    return {name: [one.translate(_FREE) for one in values] for name, values in script.known.items()}, found


def _too_long(why: str) -> SpecError:
    return SpecError("the script is too long to be read", why=why, fix="convert its command line alone")


class _Script:
    """One script while it is read: the variables it has set, and how much they may still come to."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}
        self._left = _MOST
        self._arrays: set[str] = set()

    def read(self, text: str, depth: int = 0) -> list[Command]:
        """Its simple commands, in order."""
        found: list[Command] = []
        for command in self._simple(deque(tokens(text))):
            inner = _inner(command.words) if depth < _DEEPEST else None
            found += [command] if inner is None else self._within(command.line, inner, depth)
            if len(found) > _MOST_COMMANDS or any(len(one.words) > _MOST_WORDS for one in found[-1:]):
                raise _too_long(f"it has more than {_MOST_COMMANDS} commands, or one of more than {_MOST_WORDS} words")
        return found

    def _within(self, line: int, inner: str, depth: int) -> list[Command]:
        self._spend(len(inner))
        return [Command(line, one.words, one.target) for one in self.read(inner, depth + 1)]

    def _spend(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            raise _too_long(f"its variables come to more than {_MOST} characters")

    def _simple(self, rest: deque[Token]) -> Iterator[Command]:
        words: list[str] = []
        target, line, depth = "", 0, 0
        rest.append(Token(";", (), 0))
        while rest:
            token = rest.popleft()
            if token.operator:
                if "<" in token.operator or ">" in token.operator:
                    target = self._redirected(token, rest, words) or target
                    continue
                defined = token.operator == "(" and token.glued and bool(rest) and rest[0].operator == ")"
                label = token.operator == ")" and depth == 0 and len(words) == 1
                if words and not defined and not label:
                    yield Command(line, tuple(word.translate(_FREE) for word in words), target.translate(_FREE))
                depth = max(0, depth + (token.operator == "(") - (token.operator == ")"))
                words, target, line = [], "", 0
                continue
            line = line or token.line
            name, more, value = token.assigned()
            if name and (not words or words[0] in _DECLARING):
                self._assign(name, more, value, rest)
            elif words or token.plain() not in _SYNTAX:
                words += self._expanded(token.pieces)
            else:
                line = 0

    def _redirected(self, token: Token, rest: deque[Token], words: list[str]) -> str:
        """The file output goes to; the number of a descriptor before the sign is no word."""
        if token.glued and words and words[-1].isdigit():
            words.pop()
        file = " ".join(self._expanded(rest.popleft().pieces)) if rest and not rest[0].operator else ""
        return file if ">" in token.operator and "&" not in token.operator[1:] else ""

    def _assign(self, name: str, more: bool, value: tuple[Piece, ...], rest: deque[Token]) -> None:
        array = not value and bool(rest) and rest[0].operator == "(" and rest[0].glued
        values: list[str] = []
        if array:
            rest.popleft()
            while rest and rest[0].operator != ")" and not (rest[0].operator and len(rest) == 1):
                token = rest.popleft()
                values += self._expanded(token.pieces) if not token.operator else []
            if rest and rest[0].operator == ")":
                rest.popleft()
            self._arrays.add(name)
        elif value:
            values = ["".join(self._expanded(value, split=False))]
        if not more or name not in self.known:
            self.known[name] = values
        elif array:
            self.known[name] = self.known[name] + values
        else:
            held = self.known[name] or [""]
            self.known[name] = [held[0] + "".join(values), *held[1:]]
        self._spend(sum(map(len, values)) + 1)

    def _expanded(self, pieces: tuple[Piece, ...], *, split: bool = True) -> list[str]:
        """A word with the variables it holds put in: several words where one of them, not in quotes, has blanks in it."""
        fields: list[list[str]] = [[]]
        real = False
        for piece in pieces:
            found = self._value(piece)
            self._spend(sum(map(len, found)) >> 4)
            if piece.name and not piece.quoted and split and not piece.raw_only:
                joined = " ".join(found)
                parts = joined.split() if piece.name in self.known else [joined]
                _put(fields, parts, before=joined[:1].isspace(), after=bool(parts) and joined[-1:].isspace())
                real = real or bool(parts)
            elif piece.every and piece.quoted and split:
                _put(fields, found)
                real = real or bool(found)
            else:
                fields[-1].append(" ".join(found))
                real = real or piece.quoted or bool(found and found[0])
        texts = ["".join(one) for one in fields]
        kept = [one for one in texts if one] if len(texts) > 1 else texts
        return kept if real or not split else []

    def _value(self, piece: Piece) -> list[str]:
        """What stands in place of a piece."""
        if piece.raw_only:
            return [piece.text.translate(_HELD)]
        if not piece.name:
            return [piece.text]
        found = self.known.get(piece.name)
        if piece.operator == "+":
            return [piece.default] if found else [""] if found is not None else [piece.text]
        if found is None or (piece.operator == ":-" and not any(found)):
            return [piece.default] if piece.operator else [piece.text] if found is None else [""]
        self._spend(sum(map(len, found)) + len(found))
        return found


def _put(fields: list[list[str]], parts: list[str], *, before: bool = False, after: bool = False) -> None:
    """Add the words a variable comes to: the first to the word it stands in, where no blank is ``before`` it."""
    if before and fields[-1]:
        fields.append([])
    for number, part in enumerate(parts):
        if number:
            fields.append([])
        fields[-1].append(part)
    if after:
        fields.append([])


def _inner(words: tuple[str, ...]) -> str | None:
    """The shell text a command hands to a shell: of eval, of ``sh -c``."""
    at = next((number for number, word in enumerate(words) if word not in _BEFORE), 0)
    name = words[at].rpartition("/")[2] if words else ""
    if name == "eval":
        return " ".join(words[at + 1 :])
    if name in _SHELLS and len(words) > at + 2 and words[at + 1] in ("-c", "-ec", "-xc", "-lc"):
        return words[at + 2]
    return None
