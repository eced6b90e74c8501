"""A picture of a guest's screen: read from what QEMU writes (PPM), written as PNG, drawn on a terminal."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from tinamou.errors import ControlError
from tinamou.late import dataclass

__all__ = ["MOST_BYTES", "Picture", "blocks", "from_ppm", "sixel"]

MOST_BYTES = 128 << 20
"""What a picture may take as PPM: 8192 × 5460 pixels."""

_HEADER = re.compile(rb"P6\s(\d{1,5})\s(\d{1,5})\s255\s")
_LEVELS = 6
"""Steps of each colour in a sixel drawing, 216 colours in all: terminals offer 256."""


@dataclass(frozen=True)
class Picture:
    """``pixels`` are red, green, blue, a byte each, row by row from the top."""

    width: int
    height: int
    pixels: bytes

    def png(self) -> bytes:
        """The picture as a PNG file (source: PNG specification, third edition)."""
        row = self.width * 3
        lines = b"".join(b"\0" + self.pixels[at : at + row] for at in range(0, len(self.pixels), row))
        head = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines, 6)), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)

    def scaled(self, width: int, height: int) -> Picture:
        """The picture in other sizes, by the nearest pixel."""
        columns = [x * self.width // width * 3 for x in range(width)]
        rows = (self.pixels[y * self.height // height * self.width * 3 :][: self.width * 3] for y in range(height))
        return Picture(width, height, b"".join(row[at : at + 3] for row in rows for at in columns))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def from_ppm(data: bytes) -> Picture:
    """The picture in a file of QEMU's, which may be longer than that. Raises ControlError for what is none."""
    found = _HEADER.match(data)
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    start, size = found.end() if found else 0, width * height * 3
    if not size or len(data) < start + size:
        raise ControlError("QEMU wrote what is no picture of a screen", why=f"it begins with {data[:16]!r}")
    return Picture(width, height, bytes(data[start : start + size]))


def _fitted(picture: Picture, width: int, height: int) -> Picture:
    """As large as fits into so many pixels, never larger than it is."""
    share = min(1.0, width / picture.width, height / picture.height)
    return picture.scaled(max(1, int(picture.width * share)), max(1, int(picture.height * share)))


def blocks(picture: Picture, columns: int, rows: int) -> str:
    """The picture for a terminal of that size, two pixels to a character: the upper half block, in 24-bit colours."""
    small = _fitted(picture, columns, rows * 2)
    return "".join(f"{line}\x1b[0m\n" for line in _lines_of_blocks(small))


def _lines_of_blocks(small: Picture) -> Iterator[str]:
    row = small.width * 3
    for y in range(0, small.height, 2):
        upper, lower = small.pixels[y * row :][:row], small.pixels[(y + 1) * row :][:row] or bytes(row)
        line, before = [], b""
        for at in range(0, row, 3):
            pair = upper[at : at + 3] + lower[at : at + 3]
            if pair != before:
                line.append("\x1b[38;2;{};{};{};48;2;{};{};{}m".format(*pair))
            line.append("▀")
            before = pair
        yield "".join(line)


def sixel(picture: Picture, width: int, height: int) -> str:
    """The picture for a terminal that draws sixels, in so many pixels (source: DEC STD 070, chapter 9)."""
    small = _fitted(picture, width, height)
    step = 256 / _LEVELS
    level = bytes(int(value / step) for value in range(256))
    data = small.pixels.translate(level)
    colours = [data[at] * _LEVELS * _LEVELS + data[at + 1] * _LEVELS + data[at + 2] for at in range(0, len(data), 3)]
    said = [f'\x1bP0;1q"1;1;{small.width};{small.height}']
    for colour in sorted(set(colours)):
        red, rest = divmod(colour, _LEVELS * _LEVELS)
        parts = [value * 100 // (_LEVELS - 1) for value in (red, *divmod(rest, _LEVELS))]
        said.append("#{};2;{};{};{}".format(colour, *parts))
    bands = (colours[top * small.width : (top + 6) * small.width] for top in range(0, small.height, 6))
    said += (_band(band, small.width) for band in bands)
    return "".join(said) + "\x1b\\\n"


def _band(colours: list[int], width: int) -> str:
    """Six rows of pixels: for each colour in them a line over the whole width, one over another."""
    lines = []
    for colour in sorted(set(colours)):
        bits = [0] * width
        for at, value in enumerate(colours):
            if value == colour:
                bits[at % width] |= 1 << at // width
        lines.append(f"#{colour}" + _repeated(bits))
    return "$".join(lines) + "-"


def _repeated(bits: list[int]) -> str:
    said, at = [], 0
    while at < len(bits):
        count = 1
        while at + count < len(bits) and bits[at + count] == bits[at]:
            count += 1
        sign = chr(63 + bits[at])
        said.append(f"!{count}{sign}" if count > 3 else sign * count)
        at += count
    return "".join(said)
