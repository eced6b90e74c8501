"""Fields of a structure of bytes, within its bounds."""

from __future__ import annotations

__all__ = ["MalformedError", "Reader", "number"]


class MalformedError(ValueError):
    """These bytes are not what they should be."""


def number(data: bytes) -> int:
    """An unsigned number, its lowest byte first."""
    return int.from_bytes(data, "little")


class Reader:
    """Takes one field after the other. Raises MalformedError where there is less."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._at, self._what = data, 0, what

    @property
    def left(self) -> int:
        """So many bytes are left."""
        return len(self._data) - self._at

    def take(self, length: int, field: str) -> bytes:
        """The next so many bytes."""
        if length > self.left:
            raise MalformedError(f"{self._what}: {field} needs {length} bytes at {self._at}, and {self.left} are left")
        self._at += length
        return self._data[self._at - length : self._at]

    def number(self, length: int, field: str) -> int:
        """The next so many bytes as an unsigned number, its lowest byte first."""
        return number(self.take(length, field))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.left, "the rest")

    def ended(self) -> None:
        """Nothing may be left."""
        if self.left:
            raise MalformedError(f"{self._what}: {self.left} bytes more than it has")
