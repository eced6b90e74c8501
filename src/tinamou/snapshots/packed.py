"""A stream of named pieces, a tar archive of plain files alone, whose last one, SHA256SUMS, tells every other.

It is written and read from the beginning to the end, so that it can go through a pipe. What is read was made by nobody one
knows: of tar only that is understood which is written here, and no piece is larger than its reader allows.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

from tinamou.errors import Problem, StateError
from tinamou.images.progress import Progress, silent

__all__ = ["Piece", "Reader", "Writer"]

SUMS = "SHA256SUMS"
_BLOCK = 512
_PIECE = 1 << 20
_LONGEST_SUMS = 1 << 16
_MOST_PIECES = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
_FIX = "copy or export it again"


class Writer:
    """Writes pieces to ``out``; `close` writes their sums. Raises OSError."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._sums: dict[str, str] = {}

    def add(self, name: str, size: int, source: BinaryIO, progress: Progress = silent) -> None:
        """One piece of that many bytes, read from ``source``. Raises StateError for one that is cut short."""
        self._head(name, size)
        digest, left = hashlib.sha256(), size
        while left:
            data = source.read(min(left, _PIECE))
            if not data:
                raise StateError(f"{name} became shorter while it was packed", fix="try it again")
            digest.update(data)
            self._out.write(data)
            left -= len(data)
            progress(f"packing {name}", 1 - left / size)
        self._pad(size)
        self._sums[name] = digest.hexdigest()

    def close(self) -> None:
        """The sums, and the end of the archive."""
        text = "".join(f"{digest}  {name}\n" for name, digest in self._sums.items()).encode()
        self._head(SUMS, len(text))
        self._out.write(text)
        self._pad(len(text))
        self._out.write(bytes(2 * _BLOCK))
        self._out.flush()

    def _head(self, name: str, size: int) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o600
        self._out.write(member.tobuf(tarfile.GNU_FORMAT))

    def _pad(self, size: int) -> None:
        self._out.write(bytes(-size % _BLOCK))


class Piece:
    """One piece as it comes: its name and size in bytes; `read` gives it out, and must have done so before the next one."""

    def __init__(self, name: str, size: int, source: Callable[[int], bytes]) -> None:
        self.name: str = name
        self.size: int = size
        self.left: int = size
        self._source, self._digest = source, hashlib.sha256()

    def read(self, most: int = _PIECE) -> bytes:
        """The next bytes, nothing at its end."""
        data = self._source(min(self.left, most)) if self.left else b""
        self._digest.update(data)
        self.left -= len(data)
        return data

    def whole(self) -> bytes:
        """All of it."""
        return b"".join(iter(self.read, b""))

    @property
    def sum(self) -> str:
        """The SHA-256 of what was read."""
        return self._digest.hexdigest()


class Reader:
    """The pieces of a stream; ``called`` is what it is called where it is damaged."""

    def __init__(self, source: BinaryIO, called: str) -> None:
        self._source, self._called = source, called

    def pieces(self) -> Iterator[Piece]:
        """One after another; ends without an error only where all are what was packed. Raises StateError, OSError."""
        found: dict[str, str] = {}
        while (piece := self._next()).name != SUMS:
            if piece.name in found or len(found) >= _MOST_PIECES:
                raise self._odd(f"{piece.name} is there twice" if piece.name in found else "it has too many pieces")
            yield piece
            while piece.read():
                pass
            self._exactly(-piece.size % _BLOCK)
            found[piece.name] = piece.sum
        if piece.size > _LONGEST_SUMS:
            raise self._odd(f"its {SUMS} is too long")
        self._compare(piece.whole(), found)

    def _compare(self, text: bytes, found: dict[str, str]) -> None:
        lines = [_LINE.fullmatch(line) for line in text.decode("ascii", "replace").splitlines()]
        sums = {match[2]: match[1] for match in lines if match}
        if len(sums) != len(lines):
            raise self._damaged(Problem(SUMS, None, "is damaged", _FIX))
        problems = [Problem(name, None, "is missing", _FIX) for name in sums.keys() - found.keys()]
        problems += [Problem(name, None, f"is not listed in {SUMS}", _FIX) for name in found.keys() - sums.keys()]
        changed = (name for name in sums.keys() & found.keys() if sums[name] != found[name])
        problems += [Problem(name, None, "is damaged: its SHA-256 is another one", _FIX) for name in sorted(changed)]
        if problems:
            raise self._damaged(*problems)

    def _next(self) -> Piece:
        try:
            member = tarfile.TarInfo.frombuf(self._exactly(_BLOCK), "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError, ValueError) as error:
            raise self._odd(f"where a piece should begin there is none: {error}") from error
        plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.linkname
        if not plain or not _NAME.fullmatch(member.name) or member.size < 0:
            raise self._odd(f"{member.name!r:.80} is no plain file, or has no plain name")
        return Piece(member.name, member.size, self._some)

    def _some(self, most: int) -> bytes:
        data = self._source.read(most)
        if not data:
            raise self._damaged(Problem("end", None, "it is cut short", _FIX))
        return data

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self._some(size - len(data))
        return data

    def _odd(self, why: str) -> StateError:
        return StateError(f"{self._called} was not exported by tinamou", why=why, fix="tinamou export NAME FILE makes one")

    def _damaged(self, *problems: Problem) -> StateError:
        return StateError(f"{self._called} is damaged", problems=list(problems))
