"""Pictures, keys and fonts without a machine: what is written can be read back, what is no such thing is refused by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from tinamou.errors import ControlError, SpecError, StateError
from tinamou.screen.keyboard import chord, chords_of
from tinamou.screen.picture import Picture, blocks, from_ppm, sixel
from tinamou.screen.text import UNREAD, Font, fonts_in, read_text

RED, BLUE, BLACK = b"\xff\0\0", b"\0\0\xff", bytes(3)
FLAG = Picture(2, 2, RED + BLUE + BLUE + RED)


def unpacked(png):
    """Width, height and pixels by the letter of the format."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        data = png[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", png, at + 8 + size) == (zlib.crc32(kind + data),)
        chunks[kind] = data
        at += 12 + size
    width, height = struct.unpack_from(">II", chunks[b"IHDR"])
    rows = zlib.decompress(chunks[b"IDAT"])
    stride = 1 + 3 * width
    assert {rows[n * stride] for n in range(height)} == {0}
    return width, height, b"".join(rows[n * stride + 1 : (n + 1) * stride] for n in range(height))


def test_a_png_holds_the_pixels():
    assert unpacked(FLAG.png()) == (2, 2, FLAG.pixels)


def test_ppm_is_read_and_nothing_else():
    assert from_ppm(b"P6\n2 2\n255\n" + FLAG.pixels + bytes(100)) == FLAG
    for head in (b"", b"P5\n2 2\n255\n", b"P6\n2 3\n255\n", b"P6\n0 0\n255\n", b"P6\n99999 99999\n255\n"):
        with pytest.raises(ControlError, match="no picture"):
            from_ppm(head + FLAG.pixels)


def test_blocks_are_two_pixels_each():
    assert blocks(FLAG, 80, 24) == ("\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[38;2;0;0;255;48;2;255;0;0m▀\x1b[0m\n")
    odd = blocks(Picture(1, 1, RED), 80, 24)
    assert odd == "\x1b[38;2;255;0;0;48;2;0;0;0m▀\x1b[0m\n"
    wide = Picture(400, 4, RED * 1600)
    assert blocks(wide, 40, 24).count("▀") == 40 * 1


def sixels(text):
    """The pixels of a sixel drawing: its own small reader."""
    width, height = map(int, text.split('"1;1;')[1].split("#")[0].split(";"))
    colours, pixels, x, top, now, at = {}, {}, 0, 0, 0, text.index("#")
    while text[at] != "\x1b":
        sign, at = text[at], at + 1
        start = at
        while sign in "#!" and (text[at].isdigit() or (sign == "#" and text[at] == ";")):
            at += 1
        if sign == "#":
            now, *rest = map(int, text[start:at].split(";"))
            if rest:
                colours[now] = tuple(rest[1:])
        elif sign == "$":
            x = 0
        elif sign == "-":
            x, top = 0, top + 6
        else:
            count, bits = (int(text[start:at]), text[at]) if sign == "!" else (1, sign)
            at += sign == "!"
            lit = [bit for bit in range(6) if (ord(bits) - 63) >> bit & 1]
            pixels |= {(x + n, top + bit): colours[now] for n in range(count) for bit in lit}
            x += count
    return [[pixels[x, y] for x in range(width)] for y in range(height)]


def test_sixels_hold_the_pixels():
    tall = Picture(5, 8, (RED * 5 + BLUE * 5) * 4)
    red, blue = (100, 0, 0), (0, 0, 100)
    assert sixels(sixel(tall, 100, 100)) == [[red] * 5, [blue] * 5] * 4


def test_texts_become_keys():
    assert chords_of("aZ-9!\n") == [("a",), ("shift", "z"), ("minus",), ("9",), ("shift", "1"), ("ret",)]
    with pytest.raises(SpecError) as caught:
        chords_of("fünf €€")
    assert [one.value for one in caught.value.problems] == ["ü", "€"]
    assert "U+20AC EURO SIGN" in str(caught.value)


def test_chords_are_named():
    assert chord("Ctrl-Alt-Del") == ("ctrl", "alt", "delete")
    assert chord("-") == ("minus",)
    assert chord("ctrl-?") == ("ctrl", "shift", "slash")
    assert chord("super-f12") == ("meta_l", "f12")
    with pytest.raises(SpecError) as caught:
        chord("ctrl-foo-bar")
    assert [one.value for one in caught.value.problems] == ["foo", "bar"]


def fonts():
    files = [Path("/usr/share/seabios/vgabios-stdvga.bin"), Path("/usr/share/OVMF/OVMF_CODE_4M.fd")]
    if missing := [str(one) for one in files if not one.is_file()]:
        pytest.skip(f"not installed: {missing}")
    return [font for one in files for font in fonts_in(one.read_bytes())]


def drawn(font: Font, cell: int, lines, size, at=(0, 0), ink=b"\xaa" * 3, paper=BLACK):
    """A screen with these lines, in the pixels of the font."""
    shapes = {sign: glyph for glyph, sign in reversed(font.glyphs.items())}
    width, height = size
    pixels = bytearray(paper * width * height)
    for row, line in enumerate(lines):
        for column, sign in enumerate(line):
            for y, bits in enumerate(shapes[sign]):
                for x in range(8):
                    if bits >> 7 - x & 1:
                        place = ((at[1] + row * font.rows + y) * width + at[0] + column * cell + x) * 3
                        pixels[place : place + 3] = ink
    return Picture(width, height, bytes(pixels))


def test_what_a_firmware_would_draw_is_read():
    vga, efi = fonts()
    lines = ["GRUB loading.", "", "grub> ls (hd0)/boot", "é ░ ┌─┐"]
    assert read_text(drawn(vga, 9, lines, (720, 400)), [vga, efi])[:4] == lines
    assert read_text(drawn(vga, 8, lines, (640, 400)), [efi, vga])[:4] == lines
    plain = ["Shell> map -r", "  BLK0: Alias(s):"]
    centred = drawn(efi, 8, plain, (1280, 800), at=(320, (800 - 25 * 19) // 2), ink=b"\x98" * 3)
    assert [line.strip() for line in read_text(centred, [vga, efi]) if line] == [line.strip() for line in plain]
    inverse = drawn(vga, 9, ["abc"], (720, 400), ink=BLACK, paper=b"\xaa" * 3)
    assert read_text(inverse, [vga])[0].startswith("abc")


def test_what_is_no_text_is_not_guessed():
    vga, efi = fonts()
    text = drawn(vga, 9, ["some text that is here"], (720, 400))
    shifted = Picture(720, 400, text.pixels[720 * 3 * 5 :] + bytes(720 * 3 * 5))
    noise = Picture(640, 400, bytes((n * n * 7 + n) % 251 for n in range(640 * 400 * 3)))
    for picture in (shifted, noise, Picture(720, 400, bytes(720 * 400 * 3))):
        with pytest.raises(StateError, match="no text"):
            read_text(picture, [vga, efi])
    damaged = bytearray(text.pixels)
    damaged[(720 * 3 + 1) * 3 : (720 * 3 + 1) * 3 + 3] = bytes(b ^ 0xAA for b in damaged[(720 * 3 + 1) * 3 :][:3])
    assert read_text(Picture(720, 400, bytes(damaged)), [vga])[0] == UNREAD + "ome text that is here"


def test_a_file_without_fonts_has_none():
    assert list(fonts_in(b"")) == []
    assert list(fonts_in(bytes.fromhex("5d000000") * 4 + b" \0\0")) == []
