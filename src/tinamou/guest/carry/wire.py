"""What goes over the line: the host's side of what the scripts send.sh and receive.sh say, which describe it."""

from __future__ import annotations

import hashlib
import os
import re
import select
import stat
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO

from tinamou.errors import GuestError, SpecError
from tinamou.guest.archive import Packing, Unpacking, content, opened, parts_of, restore
from tinamou.guest.carry.feed import CutShortError, Feed
from tinamou.guest.carry.holes import stretches
from tinamou.guest.carry.placing import Aside
from tinamou.guest.carry.tar import BLOCK, LATEST, Reader
from tinamou.late import dataclass
from tinamou.system.closing import Closing

__all__ = ["UNIT", "Sent", "file_in", "folder_in", "read_archive", "read_file", "read_folder", "tar_in", "unit_for"]

_SMALL_UNIT, UNIT = 4096, 64 << 10
_CHUNK = 8 << 20
_LONGEST = 1024
"""Units in one sum, as in send.sh."""

_LOOK_SECONDS = 0.2
_LARGEST_FILE = 16 << 40
"""The size of the largest file of ext4: more than that is no file of a guest."""

_WORDS = {b"file": 4, b"sum": 2, b"folder": 1, b"chunk": 3, b"end": 3}
_COMPRESSED = {"zcat": b"\x1f\x8b", "bzcat": b"BZh", "xzcat": b"\xfd7zXZ", "zstdcat": b"\x28\xb5\x2f\xfd"}


@dataclass(frozen=True)
class Sent:
    """What arrived: how many bytes were carried, whether both ends computed the same sum, names that were left out."""

    size: int
    verified: bool
    dropped: tuple[bytes, ...] = ()


def unit_for(size: int) -> int:
    """Bytes that are carried at a time: all is rounded up to whole units."""
    return _SMALL_UNIT if size < 16 * UNIT else UNIT


# To the guest: pieces of bytes.


def file_in(path: str, unit: int) -> Iterator[bytes]:
    """One file. Raises OSError, GuestError when it changes meanwhile."""
    yield from _file(path, "", unit)
    yield b"end\n"


def folder_in(packing: Packing) -> Iterator[bytes]:
    """What is in a folder. Raises OSError, GuestError when it changes meanwhile."""
    yield b"tar\n"
    chunk = bytearray()
    for piece in packing.pieces():
        chunk += piece
        if len(chunk) >= _CHUNK:
            yield from _chunk(chunk[:_CHUNK])
            del chunk[:_CHUNK]
    yield from _chunk(chunk)
    yield b"0 0 -\n"
    for name, path in packing.sparse:
        yield from _file(path, f"/{name}", UNIT)
    yield b"end\n"


def tar_in(source: int) -> Iterator[bytes]:
    """A tar archive from a descriptor; empty pieces while nothing comes. Raises OSError, SpecError for what is none."""
    yield b"tar\n"
    chunk, last, began = bytearray(), b"", False
    while True:
        if not select.select([source], [], [], _LOOK_SECONDS)[0]:
            yield b""
            continue
        piece = os.read(source, 1 << 20)
        if not began:
            _refuse_compressed(piece)
        began = True
        chunk += piece
        if not piece:
            break
        if len(chunk) >= _CHUNK + BLOCK:
            yield from _chunk(chunk[:_CHUNK])
            del chunk[:_CHUNK]
    last = bytes(chunk[-BLOCK:])
    if len(chunk) % BLOCK or not last or any(last):
        raise SpecError("What is to be unpacked is no tar archive, or was cut short", fix="give a whole one: tar -c … |")
    yield from _chunk(chunk)
    yield b"0 0 -\nend\n"


def _chunk(chunk: bytearray) -> Iterator[bytes]:
    """Whole blocks of an archive, as units and what is less than a unit."""
    whole = len(chunk) - len(chunk) % UNIT
    for part, unit in ((bytes(chunk[:whole]), UNIT), (bytes(chunk[whole:]), BLOCK)):
        if part:
            yield b"%d %d %s\n" % (len(part) // unit, unit, hashlib.sha256(part).hexdigest().encode())
            yield part


def _refuse_compressed(beginning: bytes) -> None:
    tool = next((tool for tool, magic in _COMPRESSED.items() if beginning.startswith(magic)), "")
    if tool:
        raise SpecError("The tar archive is compressed", fix=f"{tool} FILE | tinamou cp - NAME:/path")


def _file(path: str, name: str, unit: int) -> Iterator[bytes]:
    with os.fdopen(opened(path), "rb", buffering=0) as file:
        state = os.fstat(file.fileno())
        size = state.st_size
        yield b"file %o %d %d\n%s\n" % (state.st_mode & 0o7777, state.st_mtime, size, os.fsencode(name))
        for first, count in stretches(file.fileno(), unit):
            for part in range(first, first + count, _LONGEST):
                yield from _stretch(file, path, part, min(_LONGEST, first + count - part), unit, size)
    yield b"0 0\n"


def _stretch(file: IO[bytes], path: str, first: int, count: int, unit: int, size: int) -> Iterator[bytes]:
    digest = hashlib.sha256()
    end = (first + count) * unit
    yield b"%d %d\n" % (first, count)
    for piece in chain(content(file, path, first * unit, min(end, size)), [bytes(max(end - size, 0))]):
        digest.update(piece)
        yield piece
    yield b"%s\n" % digest.hexdigest().encode()


# From the guest.


def read_file(feed: Feed, target: Path, unit: int) -> Sent:
    """One file, which is in its place when all of it arrived and is what was sent. Raises GuestError, OSError."""
    with Aside(target) as aside:
        sent = _fill(feed, _line(feed, b"file"), unit, lambda _: aside.file())
        _end(_line(feed, b"end"))
        aside.place_file()
    return sent


def read_folder(feed: Feed, target: Path, files: int) -> Sent:
    """A folder likewise. At most so many ``files`` are made. Raises GuestError, OSError."""
    with Aside(target) as aside, aside.folder() as new:
        _line(feed, b"folder")
        unpacking = Unpacking(new, files)
        archives = _Chunks(feed)
        unpacking.unpack(Reader(archives))
        checked = archives.end()
        while (words := _line(feed, b"file", b"end"))[0] == b"file":
            checked = _fill(feed, words, UNIT, lambda name: unpacking.create(parts_of(name))).verified and checked
        _end(words)
        unpacking.finish()
        aside.place_folder(new, unpacking.mode)
    return Sent(feed.count, checked, tuple(unpacking.dropped))


def read_archive(feed: Feed, target: int) -> Sent:
    """A tar archive, written to a descriptor as it comes. Raises GuestError, OSError."""
    _line(feed, b"folder")
    portion = 1 << 20 if stat.S_ISREG(os.fstat(target).st_mode) else select.PIPE_BUF
    archives = _Chunks(feed)
    while piece := archives.peek(1 << 20):
        left = memoryview(archives.take(len(piece)))
        while left:
            if feed.over():
                raise CutShortError("Nobody waits for the copy any more")
            if select.select([], [target], [], _LOOK_SECONDS)[1]:
                left = left[os.write(target, left[:portion]) :]
    checked = archives.end()
    _end(_line(feed, b"end"))
    return Sent(feed.count, checked)


class _Chunks:
    """What is in the chunks that come next, each checked before any of it is looked at."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._ahead = bytearray()
        self._at_end = False
        self._checked = True

    def peek(self, count: int) -> bytes:
        while len(self._ahead) < count and not self._at_end:
            words = _line(self._feed, b"chunk")
            size = _number(words[1])
            if not 0 <= size <= _CHUNK:
                raise _odd(b" ".join(words))
            self._at_end = size == 0
            chunk = self._feed.take(size)
            if words[2] == b"-":
                self._checked = self._checked and self._at_end
            else:
                _agree(hashlib.sha256(chunk), words[2])
            self._ahead += chunk
        return bytes(self._ahead[:count])

    def take(self, count: int) -> bytes:
        piece = self.peek(count)
        if len(piece) < count:
            raise CutShortError("The guest's archive ends too early", why=f"{count - len(piece)} bytes are missing")
        del self._ahead[:count]
        return piece

    def end(self) -> bool:
        """Whether all chunks had sums. Raises GuestError unless that was all."""
        if more := self.peek(1):
            raise _odd(more)
        return self._checked


def _agree(ours: hashlib._Hash, theirs: bytes) -> None:
    if ours.hexdigest().encode() != theirs:
        raise GuestError("What was copied arrived damaged", why="the sha256 of both ends differs", fix="try again")


def _line(feed: Feed, *expected: bytes) -> list[bytes]:
    """The words of the next line, of which the first says what it is. Raises GuestError."""
    words = feed.line().split(b" ")
    if (words[0], len(words)) not in {(word, _WORDS[word]) for word in expected}:
        raise _odd(b" ".join(words))
    return words


def _odd(line: bytes) -> GuestError:
    return GuestError("The guest sends what is no copy", why=f"it says {line[:60]!r}")


def _number(word: bytes, base: int = 10) -> int:
    if not re.fullmatch(rb"-?[0-9]{1,18}", word):
        raise _odd(word)
    try:
        return int(word, base)
    except ValueError:
        raise _odd(word) from None


def _fill(feed: Feed, words: list[bytes], unit: int, create: Callable[[bytes], int]) -> Sent:
    """Make one file of what comes; what does not come of it is a hole."""
    mode, time, size = _number(words[1], 8), _number(words[2]), _number(words[3])
    if not 0 <= size <= _LARGEST_FILE or abs(time) > LATEST or mode < 0:
        raise GuestError("The guest sends a file that cannot be", why=f"mode {mode:o}, time {time}, {size} bytes")
    with Closing(create(feed.line())) as descriptor:
        at, filled, checked = 0, 0, True
        while (words := feed.line().split(b" ")) != [b"0", b"0"]:
            first, count = _stretch_of(words, at, -(-size // unit))
            at = first + count
            end = min(at * unit, size)
            checked = _write(feed, descriptor, first * unit, end, at * unit - end) and checked
            filled += end - first * unit
        os.ftruncate(descriptor, size)
        restore(descriptor, mode, time * 1_000_000_000)
    return Sent(filled, checked)


def _stretch_of(words: list[bytes], at: int, units: int) -> tuple[int, int]:
    """A stretch that begins at a unit or later, and ends in time."""
    if len(words) == 2:
        first, count = _number(words[0]), _number(words[1])
        if at <= first and 0 < count <= units - first:
            return first, count
    raise _odd(b" ".join(words))


def _write(feed: Feed, descriptor: int, at: int, end: int, more: int) -> bool:
    """Write what comes between two offsets, drop so many bytes ``more``; whether there was a sum. Raises GuestError."""
    digest = hashlib.sha256()
    while at < end:
        piece = memoryview(feed.take(min(end - at, 1 << 20)))
        digest.update(piece)
        while piece:
            written = os.pwrite(descriptor, piece, at)
            at += written
            piece = piece[written:]
    feed.take(more)
    sum = _line(feed, b"sum")[1]
    if sum != b"-":
        _agree(digest, sum)
    return sum != b"-"


def _end(words: list[bytes]) -> None:
    """Raises GuestError unless the guest sent all of it."""
    if words[1] != b"0":
        raise CutShortError("The guest did not send all of it")
    if words[2] != b"no":
        raise GuestError("What is copied became smaller meanwhile", fix="try again when nobody writes to it")
