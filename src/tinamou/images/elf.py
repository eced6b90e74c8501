"""The few fields of an ELF file that building a guest needs: libraries wanted, sections, notes (source: elf(5))."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tinamou.late import dataclass

__all__ = ["Elf", "ElfError"]

_XEN_ELFNOTE_PHYS32_ENTRY = 18
_INTERPRETER, _DYNAMIC, _NOTE, _LOADED = 3, 2, 4, 1
_NEEDED, _STRINGS = 1, 5
_MOST_SEGMENTS, _MOST_ENTRIES, _LONGEST_NAME = 128, 4096, 4096
"""Bounds far beyond any kernel, program or library: a damaged file costs no more time than a sound one."""


class ElfError(ValueError):
    """Not a 64-bit little-endian ELF file, or a damaged one."""


@dataclass(frozen=True)
class Elf:
    """One 64-bit little-endian ELF file held in memory; every question raises ElfError where the file is damaged."""

    data: bytes

    def __post_init__(self) -> None:
        if self.data[:6] != b"\x7fELF\x02\x01":
            raise ElfError("not a 64-bit little-endian ELF file")

    def segments(self) -> list[tuple[int, int, int, int]]:
        """Program headers as (type, offset, virtual address, size in the file)."""
        (offset,) = self._unpacked("<Q", 32)
        size, count = self._unpacked("<HH", 54)
        if count > _MOST_SEGMENTS:
            raise ElfError(f"it claims {count} segments")
        headers = (self._unpacked("<IIQQQQ", offset + index * size) for index in range(count))
        return [(kind, start, address, length) for kind, _, start, address, _, length in headers]

    def section(self, name: str) -> bytes:
        """The content of a section; empty when there is none of that name."""
        (table,) = self._unpacked("<Q", 40)
        size, count, strings = self._unpacked("<HHH", 58)
        headers = [self._unpacked("<IIQQQQ", table + index * size) for index in range(count)]
        if not headers:
            return b""
        if strings >= count:
            raise ElfError("the names of its sections are in none of them")
        wanted = name.encode() + b"\0"
        for header in headers:
            if self.data.startswith(wanted, headers[strings][4] + header[0]):
                return self.data[header[4] : header[4] + header[5]]
        return b""

    def needed(self) -> list[str]:
        """The shared libraries the file asks for (DT_NEEDED), and its interpreter first where it has one."""
        segments = self.segments()
        names = [self._text(start) for kind, start, _, _ in segments if kind == _INTERPRETER]
        entries = [e for kind, start, _, length in segments if kind == _DYNAMIC for e in self._dynamic(start, length)]
        strings = next((value for tag, value in entries if tag == _STRINGS), 0)
        wanted = [strings + value for tag, value in entries if tag == _NEEDED]
        return names + [self._text(_file_offset(segments, address)) for address in wanted]

    def pvh_entry(self) -> int | None:
        """The 32-bit PVH entry point (note XEN_ELFNOTE_PHYS32_ENTRY), None where the kernel has none."""
        for kind, start, _, length in self.segments():
            if kind == _NOTE:
                for owner, number, content in self._notes(start, length):
                    if owner == b"Xen" and number == _XEN_ELFNOTE_PHYS32_ENTRY:
                        return int.from_bytes(content[:8], "little")
        return None

    def _dynamic(self, start: int, length: int) -> list[tuple[int, int]]:
        entries = self.data[start : start + min(length - length % 16, _MOST_ENTRIES * 16)]
        return list(struct.iter_unpack("<QQ", entries[: len(entries) - len(entries) % 16]))

    def _notes(self, start: int, length: int) -> Iterator[tuple[bytes, int, bytes]]:
        position, end = start, min(start + length, len(self.data))
        for _ in range(_MOST_ENTRIES):
            if position + 12 > end:
                return
            owner_size, size, number = self._unpacked("<III", position)
            content = position + 12 + (owner_size + 3 & ~3)
            owner = self.data[position + 12 : position + 12 + min(owner_size, _LONGEST_NAME)].rstrip(b"\0")
            yield owner, number, self.data[content : content + min(size, _LONGEST_NAME)]
            position = content + (size + 3 & ~3)

    def _unpacked(self, form: str, offset: int) -> tuple[int, ...]:
        if offset + struct.calcsize(form) > len(self.data):
            raise ElfError(f"what should be at byte {offset} lies outside the file")
        return struct.unpack_from(form, self.data, offset)

    def _text(self, offset: int) -> str:
        end = self.data.find(b"\0", offset, offset + _LONGEST_NAME)
        if end < 0:
            raise ElfError(f"the name at byte {offset} has no end")
        return self.data[offset:end].decode("utf-8", "surrogateescape")


def _file_offset(segments: list[tuple[int, int, int, int]], address: int) -> int:
    for kind, start, base, length in segments:
        if kind == _LOADED and base <= address < base + length:
            return start + address - base
    raise ElfError(f"address {address:#x} is in no segment of the file")
