"""Tar archives of somebody who is not trusted, read as they come: nothing a header claims is believed before it arrives.

The standard library's reader keeps names as long as a header says, follows chains of headers by recursion, and takes time
that grows with the square of a header; this one knows what tar programs write by default, within bounds. Source: pax in
POSIX.1-2017; the manual of GNU tar, *Basic Tar Format*.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, Protocol

from tinamou.errors import GuestError
from tinamou.late import dataclass

__all__ = ["BLOCK", "LATEST", "Member", "Reader"]

BLOCK = 512

LATEST = 253402300799
"""The last second of the year 9999."""

Kind = Literal["file", "folder", "symlink", "hardlink", "other"]

_KINDS: dict[bytes, Kind] = {
    **{b"0": "file", b"\0": "file", b"7": "file", b"5": "folder", b"2": "symlink", b"1": "hardlink"},
    **{b"3": "other", b"4": "other", b"6": "other"},
}
_LONG_NAME, _LONG_TARGET, _PAX, _PAX_GLOBAL = b"L", b"K", b"x", b"g"
_LONGEST_NAME = 4096
_LONGEST_HEADER = 128 << 10
_MOST_HEADERS = 16
_MOST_PADDING = 1 << 20
_PIECE = 1 << 20

_TIME = re.compile(rb"(-?[0-9]{1,12})(?:\.([0-9]{1,9})[0-9]{0,9})?")
_NUMBER = re.compile(rb"[0-9]{1,18}")


class Source(Protocol):
    """Where an archive comes from; both raise when there is too little."""

    def take(self, count: int) -> bytes:
        """Exactly so many bytes, at most 1 MiB."""

    def peek(self, count: int) -> bytes:
        """Bytes that are still to be taken."""


@dataclass(frozen=True)
class Member:
    """A member of an archive: its name as written, time in nanoseconds, target of a link; "other" is a device or pipe."""

    name: bytes
    kind: Kind
    size: int
    mode: int
    time: int
    target: bytes


class Reader:
    """One archive, or several in a row. Iterating gives the members; `content` what is in the file that was given last.

    It ends before the first block that neither begins an archive nor is empty. Raises GuestError.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        while True:
            for _ in self.content():
                pass
            header = self._next_header()
            if header is None:
                return
            yield self._member(header)

    def content(self) -> Iterator[bytes]:
        """What is left of the present file, piece by piece."""
        while self._left:
            piece = self._source.take(min(self._left, _PIECE))
            self._left -= len(piece)
            yield piece
        self._source.take(self._padding)
        self._padding = 0

    def _next_header(self) -> bytes | None:
        """The next block that is not empty; None where the archives end. Each begins with a header, and ends with zeros."""
        empty = 0
        while True:
            block = self._source.peek(BLOCK)
            if len(block) == BLOCK and not any(block):
                self._source.take(BLOCK)
                empty += BLOCK
                if empty > _MOST_PADDING:
                    raise _damaged("it goes on with nothing but zeros")
                continue
            if empty >= 2 * BLOCK and not _is_header(block):
                return None
            block = self._source.take(BLOCK)
            if not _is_header(block):
                raise _damaged(f"a header is damaged: {block[:40]!r}")
            return block

    def _member(self, header: bytes) -> Member:
        more: dict[bytes, bytes] = {}
        for _ in range(_MOST_HEADERS):
            flag = header[156:157]
            if flag not in (_LONG_NAME, _LONG_TARGET, _PAX, _PAX_GLOBAL):
                return self._made(header, more)
            body = self._extension(header)
            if flag == _PAX:
                more |= _records(body)
            elif flag == _LONG_NAME:
                more[b"path"] = _text(body)
            elif flag == _LONG_TARGET:
                more[b"linkpath"] = _text(body)
            header = self._source.take(BLOCK)
            if not _is_header(header):
                raise _damaged(f"a header is damaged: {header[:40]!r}")
        raise _damaged("too many headers belong to one member")

    def _extension(self, header: bytes) -> bytes:
        size = _number(header[124:136], "size")
        if size > _LONGEST_HEADER:
            raise _damaged(f"a header of {size} bytes")
        return self._source.take(size + -size % BLOCK)[:size]

    def _made(self, header: bytes, more: dict[bytes, bytes]) -> Member:
        flag = header[156:157]
        if any(key.startswith(b"GNU.sparse.") for key in more) or flag not in _KINDS:
            what = "a sparse file" if flag in b"0S" else f"a member of the unknown kind {flag!r}"
            raise GuestError("The guest's archive holds what is not taken", why=f"{what}: {_text(header[:100])!r}")
        kind = _KINDS[flag]
        name = more.get(b"path", _name(header))
        target = more.get(b"linkpath", _text(header[157:257]))
        if max(len(name), len(target)) > _LONGEST_NAME:
            raise GuestError("The guest's archive holds a name that is too long", why=f"{name[:60]!r}… or its target")
        if kind == "file" and name.endswith(b"/"):
            kind = "folder"
        size = _size(header, more) if kind == "file" else 0
        self._left, self._padding = size, -size % BLOCK
        mode = _number(header[100:108], "mode") & 0o7777
        return Member(name, kind, size, mode, _time(header, more), target)


def _size(header: bytes, more: dict[bytes, bytes]) -> int:
    if b"size" not in more:
        return _number(header[124:136], "size")
    if not _NUMBER.fullmatch(more[b"size"]):
        raise _damaged(f"a size of {more[b'size'][:40]!r}")
    return int(more[b"size"])


def _damaged(why: str) -> GuestError:
    return GuestError("The guest's archive is damaged", why=why)


def _is_header(block: bytes) -> bool:
    """Whether its own sum is right; some old programs added signed bytes."""
    digits = block[148:156].strip(b" \0")
    if len(block) < BLOCK or not digits or digits.strip(b"01234567"):
        return False
    others = block[:148] + b" " * 8 + block[156:]
    high = sum(byte > 127 for byte in others)
    return int(digits, 8) in (sum(others), sum(others) - 256 * high)


def _number(field: bytes, what: str) -> int:
    """A number, octal or in GNU's binary form. Raises GuestError."""
    if field[0] in (0x80, 0xFF):
        value = int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    else:
        digits = field.strip(b" \0")
        if digits.strip(b"01234567"):
            raise _damaged(f"a {what} of {field!r}")
        value = int(digits or b"0", 8)
    if (value < 0 and what != "time") or value >= 1 << 63:
        raise _damaged(f"a {what} of {value}")
    return value


def _time(header: bytes, more: dict[bytes, bytes]) -> int:
    """When a member was changed, in nanoseconds."""
    if b"mtime" not in more:
        seconds, rest = _number(header[136:148], "time"), 0
    else:
        found = _TIME.fullmatch(more[b"mtime"])
        if not found:
            raise _damaged(f"a time of {more[b'mtime'][:40]!r}")
        seconds, rest = int(found[1]), int((found[2] or b"0").ljust(9, b"0"))
        rest = -rest if found[1].startswith(b"-") else rest
    if abs(seconds) > LATEST:
        raise _damaged(f"a time {seconds} s after 1970")
    return seconds * 1_000_000_000 + rest


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _name(header: bytes) -> bytes:
    name, prefix = _text(header[:100]), _text(header[345:500])
    return prefix + b"/" + name if header[257:263] == b"ustar\0" and prefix else name


def _records(body: bytes) -> dict[bytes, bytes]:
    """The records of a pax header, each ``LENGTH KEY=VALUE`` and a line's end. Raises GuestError."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(body) and body[at]:
        digits, blank, _ = body[at : at + 20].partition(b" ")
        length = int(digits) if blank and _NUMBER.fullmatch(digits) else 0
        key, equals, value = body[at + len(digits) + 1 : at + length].partition(b"=")
        if length > len(body) - at or not equals or value[-1:] != b"\n":
            raise _damaged(f"a pax header is damaged: {body[at : at + 40]!r}")
        found[key] = value[:-1]
        at += length
    return found
