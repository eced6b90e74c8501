"""Reading keys and values of a Windows registry hive, piece by piece and with bounds, whatever the file says of itself.

Source: the hive format as Windows' own tools and hivex know it (regf, versions 1.3 to 1.6). Nothing is written here: that is
done by hivex, in a machine of its own (`machine.injecting`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

from tinamou.late import dataclass

__all__ = ["Hive", "HiveError", "Key", "Source", "Value", "number_of", "text_of"]

_BASE = 4096
_LARGEST = 2 << 30
_MOST_CELL = 1 << 20
_MOST_KEYS = 1 << 16
_MOST_VALUES = 4096
_MOST_DATA = 16344
_MOST_LISTS = 1024
_SZ, _EXPAND_SZ, _DWORD = 1, 2, 4


class HiveError(Exception):
    """The hive is damaged, or of a form that is not known here: the text says which."""


class Source(Protocol):
    """Where a hive's bytes come from: ``size`` of them, readable anywhere."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from ``offset``; shorter at the end."""
        ...


@dataclass(frozen=True)
class Value:
    """One value: its type, as Windows numbers them, and its bytes."""

    type: int
    data: bytes


class Hive:
    """A hive; ``clean`` says that all that was ever written to it is in it, not in its logs. Raises HiveError."""

    def __init__(self, source: Source) -> None:
        base = source.read(0, _BASE)
        if len(base) < _BASE or base[:4] != b"regf":
            raise HiveError("it does not begin as a hive does")
        first, second = struct.unpack_from("<II", base, 4)
        major, minor, self._root, length = (*struct.unpack_from("<II", base, 20), *struct.unpack_from("<II", base, 36))
        if major != 1 or not 3 <= minor <= 6:
            raise HiveError(f"its version is {major}.{minor}, not 1.3 to 1.6")
        words = struct.unpack_from("<127I", base)
        total = 0
        for word in words:
            total ^= word
        if struct.unpack_from("<I", base, 508)[0] != {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(total, total):
            raise HiveError("the checksum of its first block is wrong")
        if not _BASE <= length <= _LARGEST or length % _BASE or length + _BASE > source.size:
            raise HiveError(f"it says to have {length} bytes, and has {max(0, source.size - _BASE)}")
        self.clean: bool = first == second
        self._source, self._length = source, length

    def root(self) -> Key:
        """The key that all others are below."""
        return self.key_at(self._root)

    def find(self, *path: str) -> Key | None:
        """The key of that path, in any case; None where there is none. Raises HiveError."""
        key: Key | None = self.root()
        for name in path:
            key = key.child(name) if key else None
        return key

    def cell(self, offset: int) -> bytes:
        """The content of a cell that is in use. Raises HiveError."""
        if offset % 8 or not 32 <= offset <= self._length - 8:
            raise HiveError(f"a cell is said to be at {offset}, outside of it")
        size = -struct.unpack("<i", self._exactly(offset, 4))[0]
        if not 8 <= size <= _MOST_CELL or offset + size > self._length:
            raise HiveError(f"the cell at {offset} has no sound size")
        return self._exactly(offset + 4, size - 4)

    def key_at(self, offset: int) -> Key:
        """The key whose cell is there. Raises HiveError."""
        return Key(self, self.cell(offset))

    def _exactly(self, offset: int, length: int) -> bytes:
        data = self._source.read(_BASE + offset, length)
        if len(data) != length:
            raise HiveError("it ends before its last cell")
        return data


class Key:
    """A key: its ``name``, the keys below it, its values."""

    def __init__(self, hive: Hive, cell: bytes) -> None:
        if len(cell) < 76 or cell[:2] != b"nk":
            raise HiveError("a cell that should be a key is none")
        flags, count, keys = struct.unpack_from("<H", cell, 2)[0], *struct.unpack_from("<I4xI", cell, 20)
        self._values = struct.unpack_from("<II", cell, 36)
        self._hive, self._count, self._keys = hive, count, keys
        length = struct.unpack_from("<H", cell, 72)[0]
        self.name: str = _text(cell[76 : 76 + length], narrow=bool(flags & 0x20))

    def child(self, name: str) -> Key | None:
        """The key of that name below it, in any case. Raises HiveError."""
        wanted = name.upper()
        for offset, mark in self._below(name):
            if mark and (key := self._hive.key_at(offset)).name.upper() == wanted:
                return key
        return None

    def children(self) -> Iterator[Key]:
        """All keys below it. Raises HiveError."""
        return (self._hive.key_at(offset) for offset, _ in self._below(""))

    def _below(self, name: str) -> Iterator[tuple[int, bool]]:
        """Where each key below it lies, and whether it may be of that name by what the list says of it."""
        if not self._count:
            return
        cell = self._hive.cell(self._keys)
        places = _offsets(cell, 4) if cell[:2] == b"ri" else []
        if len(places) > _MOST_LISTS:
            raise HiveError(f"a key has its keys in more than {_MOST_LISTS} lists")
        left = _MOST_KEYS
        for one in (self._hive.cell(place) for place in places) if places else (cell,):
            kind = one[:2]
            if kind not in (b"lf", b"lh", b"li"):
                raise HiveError("a list of keys is of no known kind")
            for number, offset in enumerate(_offsets(one, 4 if kind == b"li" else 8)):
                left -= 1
                if left < 0:
                    raise HiveError(f"a key has more than {_MOST_KEYS} below it")
                hint = one[8 + 8 * number : 12 + 8 * number]
                yield offset, kind == b"li" or _may_be(kind, hint, name)

    def value(self, name: str) -> Value | None:
        """The value of that name, in any case; ``""`` is the key's own. Raises HiveError."""
        wanted = name.upper()
        return next((self._content(cell) for found, cell in self._cells() if found.upper() == wanted), None)

    def values(self) -> dict[str, Value]:
        """All values by their names. Raises HiveError."""
        return {name: self._content(cell) for name, cell in self._cells()}

    def _cells(self) -> Iterator[tuple[str, bytes]]:
        count, listed = self._values
        if not count:
            return
        if count > _MOST_VALUES:
            raise HiveError(f"a key has more than {_MOST_VALUES} values")
        offsets = self._hive.cell(listed)
        if len(offsets) < 4 * count:
            raise HiveError("a list of values is too short")
        for offset in struct.unpack_from(f"<{count}I", offsets):
            cell = self._hive.cell(offset)
            if len(cell) < 20 or cell[:2] != b"vk":
                raise HiveError("a cell that should be a value is none")
            length, flags = struct.unpack_from("<H", cell, 2)[0], struct.unpack_from("<H", cell, 16)[0]
            yield _text(cell[20 : 20 + length], narrow=bool(flags & 1)), cell

    def _content(self, cell: bytes) -> Value:
        length, offset, kind = struct.unpack_from("<III", cell, 4)
        if length >> 31:
            return Value(kind, cell[8 : 8 + min(length & 0x7FFFFFFF, 4)])
        if length > _MOST_DATA:
            raise HiveError(f"a value has {length} bytes, more than {_MOST_DATA}")
        if not length:
            return Value(kind, b"")
        data = self._hive.cell(offset)
        if len(data) < length:
            raise HiveError("a value is longer than its cell")
        return Value(kind, data[:length])


def text_of(value: Value | None) -> str:
    """A value's text; ``""`` for one that is none, or not there."""
    if value is None or value.type not in (_SZ, _EXPAND_SZ):
        return ""
    return value.data[: len(value.data) & ~1].decode("utf-16-le", "replace").split("\0", 1)[0]


def number_of(value: Value | None) -> int | None:
    """A value's number; None for one that is none, or not there."""
    return int.from_bytes(value.data, "little") if value and value.type == _DWORD and len(value.data) == 4 else None


def _offsets(cell: bytes, width: int) -> list[int]:
    count = struct.unpack_from("<H", cell, 2)[0]
    if len(cell) < 4 + count * width:
        raise HiveError("a list of keys is too short")
    return [struct.unpack_from("<I", cell, 4 + number * width)[0] for number in range(count)]


def _may_be(kind: bytes, hint: bytes, name: str) -> bool:
    """Whether a key with that hint in its list may have that name."""
    if kind == b"lh":
        total = 0
        for unit in struct.unpack(f"<{len(data := name.upper().encode('utf-16-le', 'surrogatepass')) // 2}H", data):
            total = (total * 37 + unit) & 0xFFFFFFFF
        return int.from_bytes(hint, "little") == total
    told = hint.split(b"\0", 1)[0]
    return not name.isascii() or not told.isascii() or name[: len(told)].upper() == told.decode().upper()


def _text(data: bytes, *, narrow: bool) -> str:
    return data.decode("latin-1") if narrow else data[: len(data) & ~1].decode("utf-16-le", "replace")
