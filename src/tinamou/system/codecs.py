"""Decompression of what kernels and modules are packed with: gzip, bzip2, xz, lzma, zstd, lz4."""

from __future__ import annotations

import ctypes
import ctypes.util
import shutil
import struct
import subprocess

__all__ = ["CodecError", "compression_of", "decompress"]

_MAGIC = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x5d\x00\x00", "lzma"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x02\x21\x4c\x18", "lz4"),
)
_LZ4_BLOCK = 8 << 20


class CodecError(Exception):
    """The data is damaged, or nothing on this host can decompress it."""


def compression_of(data: bytes) -> str:
    """Which compression the data begins with; empty for none known."""
    return next((name for magic, name in _MAGIC if data.startswith(magic)), "")


def decompress(data: bytes) -> bytes:
    """The content of one compressed stream; bytes after its end are ignored. Raises CodecError."""
    kind = compression_of(data)
    try:
        return _DECODERS[kind](data)
    except KeyError:
        raise CodecError(f"unknown compression; the data begins with {data[:6].hex()}") from None
    except (OSError, ValueError, EOFError, subprocess.SubprocessError) as error:
        raise CodecError(f"the {kind} stream cannot be decompressed: {error}") from error


def _gzip(data: bytes) -> bytes:
    import zlib

    try:
        return zlib.decompressobj(wbits=31).decompress(data)
    except zlib.error as error:
        raise ValueError(str(error)) from error


def _bzip2(data: bytes) -> bytes:
    import bz2

    return bz2.BZ2Decompressor().decompress(data)


def _lzma(data: bytes) -> bytes:
    import lzma

    try:
        return lzma.LZMADecompressor().decompress(data)
    except lzma.LZMAError as error:
        raise ValueError(str(error)) from error


def _zstd(data: bytes) -> bytes:
    path = ctypes.util.find_library("zstd")
    if not path:
        return _by_command(["zstd", "-dc"], data)
    library = ctypes.CDLL(path)
    library.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t
    library.ZSTD_getFrameContentSize.restype = ctypes.c_ulonglong
    library.ZSTD_decompress.restype = ctypes.c_size_t
    used = library.ZSTD_findFrameCompressedSize(data, ctypes.c_size_t(len(data)))
    size = library.ZSTD_getFrameContentSize(data, ctypes.c_size_t(len(data)))
    if used > len(data) or size >= 2**63:
        return _by_command(["zstd", "-dc"], data)
    out = ctypes.create_string_buffer(size)
    done = library.ZSTD_decompress(out, ctypes.c_size_t(size), data, ctypes.c_size_t(used))
    if done != size:
        raise ValueError("damaged zstd frame")
    return out.raw


def _lz4(data: bytes) -> bytes:
    """The legacy frame the kernel uses: magic, then blocks of (length, data), each 8 MiB when unpacked."""
    path = ctypes.util.find_library("lz4")
    if not path:
        return _by_command(["lz4", "-dc"], data)
    library, parts, position = ctypes.CDLL(path), [], 4
    out = ctypes.create_string_buffer(_LZ4_BLOCK)
    while position + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, position)
        block = data[position + 4 : position + 4 + length]
        if length == 0 or len(block) < length:
            break
        done = library.LZ4_decompress_safe(block, out, len(block), _LZ4_BLOCK)
        if done < 0:
            raise ValueError("damaged lz4 block")
        parts.append(out.raw[:done])
        position += 4 + length
    return b"".join(parts)


def _by_command(argv: list[str], data: bytes) -> bytes:
    if not shutil.which(argv[0]):
        raise ValueError(f"neither the library nor the command {argv[0]} is installed (apt-get install {argv[0]})")
    done = subprocess.run(argv, input=data, capture_output=True, check=False)
    if not done.stdout:
        raise ValueError(done.stderr.decode(errors="replace"))
    return done.stdout


_DECODERS = {"gzip": _gzip, "bzip2": _bzip2, "xz": _lzma, "lzma": _lzma, "zstd": _zstd, "lz4": _lz4}
