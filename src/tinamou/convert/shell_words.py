"""Shell text into words and operators, in one pass: quotes, escapes, comments, variables, substitutions, documents within.

Source: POSIX.1-2017, *Shell Command Language*, *Token Recognition*; bash's manual on ``$'…'``.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from tinamou.errors import SpecError

__all__ = ["Piece", "Token", "tokens"]

_PLAIN = re.compile(r"[^ \t\r\f\v\n'\"\\$`;&|()<>]+")
_DOUBLE = re.compile(r"[^\"\\$`]+")
_BLANK = re.compile(r"(?:[ \t\r\f\v]|\\\r?\n)+")
_TRAILING = re.compile(r"\\[ \t\r]+\n")
"""A backslash that would go on in the next line but for a blank behind it: it was meant to."""
_OPERATOR = re.compile(r";;&|;;|;&|&&|\|\||&>>|&>|>\||>>|>&|<<<|<<-|<<|<&|<>|\|&|[;&|()<>\n]")
_SIMPLE = re.compile(r"\$([A-Za-z_]\w*|[0-9@*#?$!-])")
_BRACED = re.compile(r"\$\{(\w+|[@*])(\[[@*]\])?(?:(:?[-+=])([^{}$`\"'\\]*))?\}")
_INSIDE = re.compile(r"[^'\"\\()`{}]+")
_ASSIGNED = re.compile(r"([A-Za-z_]\w*)(\+?)=")
_LINE_END = re.compile(r"\n|\Z")


class Piece(NamedTuple):
    """A part of a word: text as it is, or a variable, whose text is how it was written."""

    text: str
    quoted: bool = False
    name: str = ""
    every: bool = False
    operator: str = ""
    default: str = ""
    raw_only: bool = False


class Token(NamedTuple):
    """An operator, or a word as pieces; ``glued`` to what stands before it without a blank."""

    operator: str
    pieces: tuple[Piece, ...]
    line: int
    glued: bool = False

    def plain(self) -> str:
        """The word, where nothing of it is quoted or a variable."""
        return self.pieces[0].text if len(self.pieces) == 1 and not self.pieces[0].quoted else ""

    def assigned(self) -> tuple[str, bool, tuple[Piece, ...]]:
        """``NAME+=value`` taken apart; an empty name where it is none."""
        first = self.pieces[0]
        match = None if first.quoted or first.name else _ASSIGNED.match(first.text)
        if match is None:
            return "", False, ()
        rest = first.text[match.end() :]
        return match[1], bool(match[2]), (*([Piece(rest)] if rest else []), *self.pieces[1:])


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a script. Raises SpecError where a quote is never closed."""
    return _Reader(_TRAILING.sub(" \\\n", text)).tokens()


class _Reader:
    """A place in a text."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._lines = [match.start() for match in re.finditer("\n", text)]

    def tokens(self) -> Iterator[Token]:
        """All tokens, in order."""
        text, due, glued = self._text, list[str](), False
        while self._at < len(text):
            if match := _BLANK.match(text, self._at):
                self._at, glued = match.end(), False
                continue
            line = bisect_left(self._lines, self._at) + 1
            if text[self._at] == "#" and not glued:
                self._at = self._end_of_line()
            elif match := _OPERATOR.match(text, self._at):
                self._at = match.end()
                if match[0] == "\n":
                    self._skip_documents(due)
                yield Token(match[0], (), line, glued)
                if match[0] in ("<<", "<<-"):
                    due.append(self._delimiter())
                glued = match[0] in (")",)
            else:
                yield Token("", tuple(self._word()) or (Piece("", True),), line, glued)
                glued = True

    def _end_of_line(self) -> int:
        match = _LINE_END.search(self._text, self._at)
        return match.start() if match else len(self._text)

    def _delimiter(self) -> str:
        """The word that ends a document within the script; it is left to be read as a word too."""
        rest = self._text[self._at : self._end_of_line()].strip().split()
        return rest[0].strip("\"'\\") if rest else ""

    def _skip_documents(self, due: list[str]) -> None:
        while due:
            end = due.pop(0)
            while self._at < len(self._text):
                stop = self._end_of_line()
                line, self._at = self._text[self._at : stop].strip(), stop + 1
                if line == end:
                    break

    def _word(self) -> Iterator[Piece]:
        text = self._text
        while self._at < len(text):
            if match := _PLAIN.match(text, self._at):
                self._at = match.end()
                yield Piece(match[0])
                continue
            match text[self._at]:
                case "\\":
                    escaped = text[self._at + 1 : self._at + 2]
                    self._at += 2
                    if escaped != "\n":
                        yield Piece(escaped, True)
                case "'":
                    yield Piece(self._until("'"), True)
                case '"':
                    yield from self._double()
                case "$" | "`":
                    yield self._dollar(quoted=False)
                case _:
                    return

    def _until(self, quote: str) -> str:
        end = self._text.find(quote, self._at + 1)
        if end < 0:
            raise self._open()
        found, self._at = self._text[self._at + 1 : end], end + 1
        return found

    def _open(self) -> SpecError:
        line = bisect_left(self._lines, self._at) + 1
        return SpecError(f"the quote opened in line {line} is never closed", fix="close it, or convert the line alone")

    def _double(self) -> Iterator[Piece]:
        begun, self._at = self._at, self._at + 1
        yield Piece("", True)
        while self._at < len(self._text):
            if match := _DOUBLE.match(self._text, self._at):
                self._at = match.end()
                yield Piece(match[0], True)
                continue
            character = self._text[self._at]
            if character == '"':
                self._at += 1
                return
            if character == "\\":
                escaped = self._text[self._at + 1 : self._at + 2]
                self._at += 2
                yield Piece({"\n": ""}.get(escaped, escaped if escaped in '"\\$`' else f"\\{escaped}"), True)
            else:
                yield self._dollar(quoted=True)
        self._at = begun
        raise self._open()

    def _dollar(self, *, quoted: bool) -> Piece:
        """A variable, or a substitution as it is written."""
        text, begun = self._text, self._at
        if match := _SIMPLE.match(text, begun):
            self._at = match.end()
            return Piece(match[0], quoted, match[1], match[1] == "@")
        if match := _BRACED.match(text, begun):
            self._at = match.end()
            operator = "+" if match[3] and "+" in match[3] else ":-" if match[3] and ":" in match[3] else match[3] or ""
            return Piece(match[0], quoted, match[1], match[2] == "[@]", operator.replace("=", "-"), match[4] or "")
        if text[begun] == "`":
            self._at = begun
            return Piece(f"`{self._until('`')}`", quoted, "$", raw_only=True)
        following = text[begun + 1 : begun + 2]
        if following == "'" and not quoted:
            self._at += 1
            return Piece(self._until("'"), True)
        if following in ("(", "{"):
            self._at = self._closing(begun + 1)
            return Piece(text[begun : self._at], quoted, "$", raw_only=True)
        self._at += 1
        return Piece("$", quoted)

    def _closing(self, begun: int) -> int:
        """Where the bracket at a place is closed: brackets, quotes and escapes inside are passed over."""
        stack: list[str] = []
        at, text = begun, self._text
        pairs = {"(": ")", "{": "}"}
        while at < len(text):
            if match := _INSIDE.match(text, at):
                at = match.end()
                continue
            character = text[at]
            at += 1
            if character == "\\":
                at += 1
            elif stack and character == stack[-1]:
                stack.pop()
                if not stack:
                    return at
            elif stack and stack[-1] == "'":
                continue
            elif character == '"' or (character in "'`" and stack[-1] != '"'):
                stack.append(character)
            elif character in pairs:
                stack.append(pairs[character])
        self._at = begun
        raise self._open()
