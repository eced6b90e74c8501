"""Decompression with a bound: what kernels, modules and the clusters of disks are packed with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, BinaryIO

__all__ = ["LARGEST", "CodecError", "compression_of", "decompress", "unpacked"]

LARGEST = 128 << 20
"""More than any kernel or module takes unpacked."""

_MAGIC = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x5d\x00\x00", "lzma"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x02\x21\x4c\x18", "lz4"),
)
_MEMORY = 256 << 20
"""What a dictionary may take: xz at its highest level needs a quarter of it."""

_PIECE = 1 << 16
_Decoder = Any
"""One stream on its way: ``decompress(data, max_length)``, ``eof``, as `bz2.BZ2Decompressor` has them."""


class CodecError(Exception):
    """The data is damaged, packed in no way known here, or larger than it may be."""


def compression_of(data: bytes) -> str:
    """Which compression the data begins with; empty for none known."""
    return next((name for magic, name in _MAGIC if data.startswith(magic)), "")


def decompress(data: bytes, limit: int = LARGEST) -> bytes:
    """The content of one compressed stream; bytes after its end are ignored. Raises CodecError.

    Never more than ``limit`` bytes are unpacked, whatever the stream says of itself.
    """
    kind = compression_of(data)
    if not kind:
        raise CodecError(f"unknown compression; the data begins with {data[:6].hex()}")
    stream, failures = _decoder(kind)
    try:
        claimed = _zstandard().get_frame_info(data).decompressed_size if kind == "zstd" else None
        content: bytes = stream.decompress(data, limit + 1)
    except failures as error:
        raise CodecError(f"the {kind} stream cannot be decompressed: {error}") from error
    if len(content) > limit:
        raise CodecError(f"the {kind} stream holds more than {limit} bytes")
    if not stream.eof:
        raise CodecError(f"the {kind} stream ends in the middle")
    if claimed not in (None, len(content)):
        raise CodecError(f"the {kind} stream claims {claimed} bytes and holds {len(content)}")
    return content


def unpacked(source: BinaryIO, kind: str) -> Iterator[bytes]:
    """The content of a file of one stream after another, in pieces of 64 KiB at most. Raises CodecError, OSError."""
    stream, failures = _decoder(kind)
    data = source.read(_PIECE)
    while True:
        try:
            yield stream.decompress(data, _PIECE)
        except failures as error:
            raise CodecError(f"the {kind} stream cannot be decompressed: {error}") from error
        if stream.eof:
            # Between streams of xz there may be zeros.
            data = stream.unused_data.lstrip(b"\0") or source.read(_PIECE).lstrip(b"\0")
            if not data:
                return
            stream, failures = _decoder(kind)
        elif stream.needs_input:
            data = source.read(_PIECE)
            if not data:
                raise CodecError(f"the {kind} stream ends in the middle")
        else:
            data = b""


def _decoder(kind: str) -> tuple[_Decoder, tuple[type[Exception], ...]]:
    """A decompressor for one stream of a kind, and what it raises for a damaged one."""
    return _DECODERS[kind]()


def _gzip() -> tuple[_Decoder, tuple[type[Exception], ...]]:
    import zlib

    return zlib.decompressobj(wbits=31), (zlib.error,)


def _bzip2() -> tuple[_Decoder, tuple[type[Exception], ...]]:
    import bz2

    return bz2.BZ2Decompressor(), (OSError, ValueError)


def _lzma() -> tuple[_Decoder, tuple[type[Exception], ...]]:
    import lzma

    return lzma.LZMADecompressor(memlimit=_MEMORY), (lzma.LZMAError,)


def _zstd() -> tuple[_Decoder, tuple[type[Exception], ...]]:
    library = _zstandard()
    return library.ZstdDecompressor(), (library.ZstdError,)


def _zstandard() -> ModuleType:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


class _Lz4Blocks:
    """The frame that kernels are packed in: its magic, then blocks of (length, data), each 8 MiB unpacked at most.

    What follows the last of them is no block: Linux writes the kernel's size there (source: lz4_Frame_format.md, "Legacy
    frame"; scripts/Makefile.lib, ``size_append``).
    """

    _BLOCK = 8 << 20

    def __init__(self) -> None:
        self.eof = False

    def decompress(self, data: bytes, most: int) -> bytes:
        """The content of a whole frame, as far as ``most`` bytes. Raises LZ4BlockError."""
        from lz4 import block

        parts, at = list[bytes](), 4
        while len(data) - at > 4 and sum(map(len, parts)) < most:
            length = int.from_bytes(data[at : at + 4], "little")
            packed = data[at + 4 : at + 4 + length]
            if not 0 < length == len(packed):
                return b"".join(parts)
            parts.append(block.decompress(packed, uncompressed_size=self._BLOCK))
            at += 4 + length
        self.eof = bool(parts)
        return b"".join(parts)


def _lz4() -> tuple[_Decoder, tuple[type[Exception], ...]]:
    from lz4.block import LZ4BlockError

    return _Lz4Blocks(), (LZ4BlockError, ValueError, OverflowError)


_DECODERS: dict[str, Callable[[], tuple[_Decoder, tuple[type[Exception], ...]]]] = {
    "gzip": _gzip,
    "bzip2": _bzip2,
    "xz": _lzma,
    "lzma": _lzma,
    "zstd": _zstd,
    "lz4": _lz4,
}
