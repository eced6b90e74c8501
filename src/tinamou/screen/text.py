"""The text on a screen of character cells, read by comparing each cell with the glyphs of the firmware's own fonts.

A cell is what a glyph is, pixel for pixel, or it is not read: nothing is guessed.
"""

from __future__ import annotations

import contextlib
import lzma
from collections.abc import Iterable, Iterator, Mapping

from tinamou.errors import StateError
from tinamou.late import dataclass
from tinamou.screen.picture import Picture

__all__ = ["Font", "fonts_in", "read_text"]

UNREAD = "\N{REPLACEMENT CHARACTER}"
_WIDTH = 8
_VGA_ROWS, _EFI_ROWS = 16, 19

_VGA_START = bytes(16) + bytes.fromhex("00007e81a58181bd9981817e00000000")
"""An empty glyph and a face: with these, the first two of code page 437, every VGA BIOS's font begins."""

_LZMA_START = bytes.fromhex("5d000000")
"""The properties of the only encoder that firmware volumes are packed with (source: EDK II, LzmaCustomDecompressLib)."""

_EFI_STRIDE = 3 + _EFI_ROWS
"""EFI_NARROW_GLYPH: a UCS-2 character, attributes, a byte for each row (source: UEFI specification, 34.3.1)."""

_READABLE = 0.9
"""Of the cells that are not empty: with fewer read than this the screen is a picture, not text."""


@dataclass(frozen=True)
class Font:
    """``glyphs``: the rows of a glyph, a byte each of eight pixels from the left → its character."""

    rows: int
    glyphs: Mapping[bytes, str]


def fonts_in(firmware: bytes) -> Iterator[Font]:
    """The fonts in a file of firmware: a VGA BIOS's, and that of UEFI's console, packed or not."""
    at = firmware.find(_VGA_START)
    if at >= 0:
        yield _font(_VGA_ROWS, ((firmware[at + 16 * n :][:16], bytes([n])) for n in range(256)))
        return
    for volume in (firmware, *_unpacked(firmware)):
        if found := _efi(volume):
            yield found
            return


def _font(rows: int, found: Iterable[tuple[bytes, bytes]]) -> Font:
    glyphs: dict[bytes, str] = {bytes(rows): " "}
    for glyph, code in found:
        glyphs.setdefault(glyph, code.decode("cp437") if code[0] > 31 else UNREAD)
    return Font(rows, glyphs)


def _unpacked(firmware: bytes) -> Iterator[bytes]:
    at = -1
    while (at := firmware.find(_LZMA_START, at + 1)) >= 0:
        with contextlib.suppress(lzma.LZMAError):
            yield lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=256 << 20).decompress(firmware[at:], max_length=64 << 20)


def _efi(volume: bytes) -> Font | None:
    """Its glyphs stand in the order of their characters, from the space on."""
    first = b" \0\0" + bytes(_EFI_ROWS) + b"!\0\0"
    at = volume.find(first)
    if at < 0:
        return None
    glyphs: dict[bytes, str] = {}
    before = 0
    while (code := int.from_bytes(volume[at : at + 2], "little")) > before:
        glyphs.setdefault(bytes(volume[at + 3 : at + _EFI_STRIDE]), chr(code))
        at, before = at + _EFI_STRIDE, code
    return Font(_EFI_ROWS, glyphs)


def read_text(picture: Picture, fonts: Iterable[Font]) -> list[str]:
    """The lines of text on a screen, without the spaces at their ends. Raises StateError for one that is no text.

    Of the grids it may have been drawn in, the one counts in which most cells can be read.
    """
    best, most, share = [""], 0, 0.0
    for font in fonts:
        for grid in _grids(picture, font.rows):
            lines = [_line(picture, font, grid, top) for top in range(grid.top, grid.bottom, font.rows)]
            cells = "".join(lines)
            filled = len(cells) - cells.count(" ")
            read = filled - cells.count(UNREAD)
            if read > most:
                best, most, share = lines, read, read / filled
    if share < _READABLE:
        why = f"{share:.0%} of its cells are glyphs of the firmware's fonts; from {_READABLE:.0%} on it counts as text"
        raise StateError("the screen is no text that can be read", why=why, fix="look at it: tinamou screenshot")
    return [line.rstrip() for line in best]


@dataclass(frozen=True)
class _Grid:
    """Where the cells are: ``cell`` pixels wide, from ``left``, ``top`` to ``bottom``."""

    cell: int
    columns: int
    left: int
    top: int
    bottom: int


def _grids(picture: Picture, rows: int) -> Iterator[_Grid]:
    """VGA's text screen has cells 9 wide; other firmware centres a grid of a known size."""
    if rows == _VGA_ROWS:
        cell = 9 if picture.width == 720 else _WIDTH
        yield _Grid(cell, picture.width // cell, 0, 0, picture.height // rows * rows)
        return
    sizes = dict.fromkeys(((picture.width // _WIDTH, picture.height // rows), (80, 25), (80, 50), (100, 31)))
    for columns, lines in sizes:
        left, top = (picture.width - columns * _WIDTH) // 2, (picture.height - lines * rows) // 2
        if left >= 0 and top >= 0:
            yield _Grid(_WIDTH, columns, left, top, top + lines * rows)


def _line(picture: Picture, font: Font, grid: _Grid, top: int) -> str:
    width = picture.width * 3
    rows = [picture.pixels[y * width : (y + 1) * width] for y in range(top, top + font.rows)]
    starts = ((grid.left + column * grid.cell) * 3 for column in range(grid.columns))
    return "".join(_read(font, [row[at : at + _WIDTH * 3] for row in rows]) for at in starts)


def _read(font: Font, cell: list[bytes]) -> str:
    """The character of a cell, whichever of its two colours is the paper."""
    first = cell[0][:3]
    if all(row == first * _WIDTH for row in cell):
        return " "
    ink = b""
    glyph = bytearray()
    for row in cell:
        bits = 0
        for at in range(0, _WIDTH * 3, 3):
            pixel = row[at : at + 3]
            if pixel != first:
                ink = ink or pixel
                if pixel != ink:
                    return UNREAD
            bits = bits << 1 | (pixel != first)
        glyph.append(bits)
    inverse = bytes(byte ^ 0xFF for byte in glyph)
    return font.glyphs.get(bytes(glyph)) or font.glyphs.get(inverse) or _cursor(font, bytes(glyph))


def _cursor(font: Font, glyph: bytes) -> str:
    """A cursor that underlines an empty cell."""
    lit = [row for row in glyph if row]
    return " " if 0 < len(lit) < 4 and all(row == 0xFF for row in lit) else UNREAD
