"""Bad readers, to show that the fuzzer finds what it is there for."""

from __future__ import annotations

import re
import time
import zlib

from fuzzing import target

from tinamou.errors import ImageError


def seeds() -> list[bytes]:
    return [b"length=4 data", zlib.compress(bytes(100))]


@target("sound", seeds=seeds)
def sound(data: bytes) -> object:
    if not data.startswith(b"length="):
        raise ImageError("no length", why=repr(data[:1]))
    return data[:9].decode("latin-1")


@target("another error", seeds=seeds)
def another(data: bytes) -> object:
    return int(data[7:8]) if data.startswith(b"length=") else None


@target("own error", seeds=seeds, errors=[ValueError])
def own(data: bytes) -> object:
    return int(data[7:8])


@target("slow", seeds=seeds)
def slow(data: bytes) -> object:
    if data[:7] == b"length=" and data[7:8] != b"4":
        until = time.process_time() + 1.2
        while time.process_time() < until:
            pass
    return None


@target("without end", seeds=seeds)
def endless(data: bytes) -> object:
    while data[:7] == b"length=" and data[7:8] != b"4":
        pass
    return None


@target("large", seeds=seeds)
def large(data: bytes) -> object:
    return bytearray(1 << 29) if data[:7] != b"length=" and data[:1] != b"\x78" else None


@target("dies", seeds=seeds)
def dies(data: bytes) -> object:
    import os

    if data[:7] == b"length=" and data[7:8] != b"4":
        os.abort()
    return None


@target("words", seeds=lambda: [b"size = 1"], words=["secret"])
def words(data: bytes) -> object:
    assert not re.search(rb"size = secret", data), "the word of the language was put in its place"
    return None
