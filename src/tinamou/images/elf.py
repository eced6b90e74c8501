"""The few fields of an ELF file that building a guest needs: libraries wanted, sections, notes (source: elf(5))."""

from __future__ import annotations

import struct

from tinamou.late import dataclass

__all__ = ["Elf", "ElfError"]

_XEN_ELFNOTE_PHYS32_ENTRY = 18


class ElfError(ValueError):
    """Not a 64-bit little-endian ELF file, or a damaged one."""


@dataclass(frozen=True)
class Elf:
    """One 64-bit little-endian ELF file held in memory."""

    data: bytes

    def __post_init__(self) -> None:
        if self.data[:6] != b"\x7fELF\x02\x01":
            raise ElfError("not a 64-bit little-endian ELF file")

    def segments(self) -> list[tuple[int, int, int, int]]:
        """Program headers as (type, offset, virtual address, size in the file)."""
        (offset,) = struct.unpack_from("<Q", self.data, 32)
        size, count = struct.unpack_from("<HH", self.data, 54)
        found = []
        for index in range(count):
            kind, _, start, address, _, length = struct.unpack_from("<IIQQQQ", self.data, offset + index * size)
            found.append((kind, start, address, length))
        return found

    def section(self, name: str) -> bytes:
        """The content of a section; empty when there is none of that name."""
        (table,) = struct.unpack_from("<Q", self.data, 40)
        size, count, strings = struct.unpack_from("<HHH", self.data, 58)
        headers = [struct.unpack_from("<IIQQQQ", self.data, table + i * size) for i in range(count)]
        base = headers[strings][4]
        for header in headers:
            start = base + header[0]
            if self.data[start : self.data.index(b"\0", start)] == name.encode():
                return self.data[header[4] : header[4] + header[5]]
        return b""

    def needed(self) -> list[str]:
        """The shared libraries the file asks for (DT_NEEDED), and its interpreter first where it has one."""
        segments = self.segments()
        names = [self._text(start) for kind, start, _, _ in segments if kind == 3]
        entries = [e for kind, start, _, length in segments if kind == 2 for e in self._dynamic(start, length)]
        strings = next((value for tag, value in entries if tag == 5), 0)
        return names + [self._text(self._file_offset(strings + value)) for tag, value in entries if tag == 1]

    def pvh_entry(self) -> int | None:
        """The 32-bit PVH entry point (note XEN_ELFNOTE_PHYS32_ENTRY), None where the kernel has none."""
        for kind, start, _, length in self.segments():
            if kind == 4:
                for owner, number, content in self._notes(start, length):
                    if owner == b"Xen" and number == _XEN_ELFNOTE_PHYS32_ENTRY:
                        return int.from_bytes(content, "little")
        return None

    def _dynamic(self, start: int, length: int) -> list[tuple[int, int]]:
        return list(struct.iter_unpack("<QQ", self.data[start : start + length]))

    def _notes(self, start: int, length: int) -> list[tuple[bytes, int, bytes]]:
        found, position, end = [], start, start + length
        while position + 12 <= end:
            owner_size, size, number = struct.unpack_from("<III", self.data, position)
            content = position + 12 + (owner_size + 3 & ~3)
            owner = self.data[position + 12 : position + 12 + owner_size].rstrip(b"\0")
            found.append((owner, number, self.data[content : content + size]))
            position = content + (size + 3 & ~3)
        return found

    def _file_offset(self, address: int) -> int:
        for kind, start, base, length in self.segments():
            if kind == 1 and base <= address < base + length:
                return start + address - base
        raise ElfError(f"address {address:#x} is in no segment of the file")

    def _text(self, offset: int) -> str:
        return self.data[offset : self.data.index(b"\0", offset)].decode()
