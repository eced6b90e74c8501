"""Damaged inputs: what a fuzzer makes of sound ones. Texts are changed by words, all else by bytes and numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import Protocol

LARGEST = 128 << 10
"""Bytes of one input."""


class Form(Protocol):
    """What is known of the inputs of one reader."""

    @property
    def words(self) -> tuple[str, ...]:
        """Words of its language; none where it reads no text."""

    @property
    def values(self) -> re.Pattern[str] | None:
        """What of a text may be replaced without the rest losing its form."""


_NUMBERS = sorted(
    {v + d for b in (0, 7, 8, 15, 16, 31, 32, 40, 53, 62, 63, 64) for v in (1 << b, -(1 << b)) for d in (-1, 0, 1)}
)
_ODD = (
    "",
    "-1",
    "0",
    "1e999",
    "9" * 30,
    "9" * 5000,
    "0x",
    "nan",
    "../..",
    "/",
    "\x00",
    "\x1b[2J",
    "\ud800",
    "é\u2028",
    "%s",
    "$(",
    "`",
)
_ODD += (
    "{" * 2000,
    "[" * 2000,
    "(" * 500,
    '"',
    "'",
    "<a>" * 500,
    "=",
    ",,",
    "\\",
    "\\\n",
    "\n",
    ";",
    "#",
    "true",
    "null",
    "1.5",
    "0-9",
)
_PLAIN = tuple(value for value in _ODD if not re.search(r"[\s<>\"'{}()\[\]\\=;,#$`\0-\x1f]", value))
"""Those that leave what stands around them as it is."""
_WINDOW = 1024
"""Characters of which a word is taken: to find all words of a long text costs more than to read it."""
_TOKEN = re.compile(r"[\w.+-]+|[^\w\s]")


def damaged(seed: bytes, pool: Sequence[bytes], one: Form, random: Random) -> bytes:
    """The seed after one to a few changes, each of a random kind."""
    data = bytearray(seed)
    textual = bool(one.words) and random.random() < 0.9
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 5, 9))):
        change = random.choice(_OF_TEXT if textual else _OF_BYTES)
        data = bytearray(change(bytes(data), pool, one, random))[:LARGEST]
    return bytes(data)


def _place(data: bytes, random: Random) -> int:
    """Anywhere, but more often near the beginning, where headers are."""
    return random.randrange(len(data) + 1) if random.random() < 0.5 else random.randrange(min(len(data), 512) + 1)


def _number(data: bytes, pool: Sequence[bytes], one: Form, random: Random) -> bytes:
    width, order = random.choice((1, 2, 4, 4, 8, 8)), random.choice(("little", "big"))
    at = _place(data, random) // width * width if random.random() < 0.8 else _place(data, random)
    value = random.choice(_NUMBERS) if random.random() < 0.6 else random.getrandbits(8 * random.randint(1, width))
    return data[:at] + (value % (1 << 8 * width)).to_bytes(width, order) + data[at + width :]  # type: ignore[arg-type]


def _flip(data: bytes, pool: Sequence[bytes], one: Form, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + bytes(one ^ 1 << random.randrange(8) for one in data[at : at + 1]) + data[at + 1 :]


def _noise(data: bytes, pool: Sequence[bytes], one: Form, random: Random) -> bytes:
    at, length = _place(data, random), random.randint(1, 16)
    return data[:at] + random.randbytes(length) + data[at + random.choice((0, length)) :]


def _cut(data: bytes, pool: Sequence[bytes], one: Form, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] if random.random() < 0.3 else data[:at] + data[at + random.randint(1, 64) :]


def _copied(data: bytes, pool: Sequence[bytes], one: Form, random: Random) -> bytes:
    """A slice of this or another input, put in or written over."""
    source = random.choice(pool) if random.random() < 0.4 else data
    start, length, at = _place(source, random), random.choice((1, 4, 8, 16, 64, 512, 4096)), _place(data, random)
    piece = source[start : start + length]
    return data[:at] + piece + data[at + random.choice((0, len(piece))) :]


def _grown(data: bytes, pool: Sequence[bytes], one: Form, random: Random) -> bytes:
    """A slice repeated, sometimes to the largest input there is."""
    start, length = _place(data, random), random.choice((1, 1, 2, 4, 8, 16, 32, 64, 512))
    piece = data[start : start + length] or b"\0"
    most = LARGEST if random.random() < 0.05 else 2048
    return data[:start] + piece * (random.randint(1, most) // len(piece) + 1) + data[start:]


def _token(data: bytes, pool: Sequence[bytes], one: Form, random: Random) -> bytes:
    """One word or value replaced: by an odd value, a word of the language, another word of this text."""
    text = data.decode("utf-8", "surrogateescape")
    start = random.randrange(max(1, len(text) - _WINDOW))
    pattern = one.values if one.values and random.random() < 0.9 else _TOKEN
    found = list(pattern.finditer(text, start, start + _WINDOW)) or list(_TOKEN.finditer(text, start, start + 4096))
    if not found:
        return data + random.choice((*_ODD, *one.words)).encode("utf-8", "surrogatepass")
    place = random.choice(found)
    kind = random.random()
    odd = _ODD if kind < 0.1 else _PLAIN
    value = random.choice(odd) if kind < 0.5 else random.choice(one.words) if kind < 0.7 else random.choice(found)[0]
    end = place.end() if random.random() < 0.7 else place.start()
    changed = text[: place.start()] + value + text[end:]
    return changed.encode("utf-8", "surrogatepass" if "\ud800" in value else "surrogateescape")


def _line(data: bytes, pool: Sequence[bytes], one: Form, random: Random) -> bytes:
    """Lines taken out, doubled, exchanged, taken from another input."""
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    others = random.choice(pool).split(b"\n")
    new = random.choice(
        ([], [lines[at]] * random.choice((2, 2, 50)), [random.choice(lines)], [random.choice(others), lines[at]])
    )
    return b"\n".join([*lines[:at], *new, *lines[at + 1 :]])


_OF_BYTES = (_number, _number, _number, _flip, _noise, _cut, _copied, _grown)
_OF_TEXT = (*[_token] * 8, _line, _line, _cut, _copied, _grown)
