"""What is fuzzed of a copy: archives a guest's tar may send, and everything its script may say around them."""

from __future__ import annotations

import functools
import io
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fuzz_seeds
from fuzzing import target

from tinamou.errors import GuestError
from tinamou.guest.carry.feed import Feed
from tinamou.guest.carry.wire import read_file, read_folder

sys.path.append(str(fuzz_seeds.TESTS / "guest"))
import sent

VICTIM = "mine"


@functools.cache
def folder() -> Path:
    """A folder of this process, with a file beside the place that is copied to."""
    made = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    import atexit

    atexit.register(shutil.rmtree, made, ignore_errors=True)
    (made / VICTIM).write_text(VICTIM)
    return made


def archives() -> Iterator[bytes]:
    """Folders with all there is in them, in each dialect of tar."""
    members = [("a", sent.FOLDER, ""), ("a/file", sent.FILE, b"x" * 700), ("a/hard", sent.HARD, "a/file")]
    members += [("link", sent.LINK, "../mine"), ("pipe", tarfile.FIFOTYPE, ""), ("n" * 150, sent.FILE, b"")]
    yield sent.archived(*members)
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as made:
            for name, kind, extra in members:
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, extra if isinstance(extra, str) else ""
                made.addfile(member)
        yield out.getvalue()


def copies() -> Iterator[bytes]:
    """The same as a guest says it, and files with holes."""
    for archive in archives():
        yield (
            sent.framed(archive) + b"file 640 1000000000 200000\n./a/hole\n2 1\n" + bytes(65536) + b"sum -\n0 0\nend 0 no\n"
        )


def files() -> Iterator[bytes]:
    """Single files."""
    yield b"file 640 1000000000 9000\n\n0 1\n" + b"x" * 4096 + b"sum -\n2 1\n" + b"y" * 4096 + b"sum -\n0 0\nend 0 no\n"
    yield b"file 0 -5 0\n\n0 0\nend 0 no\n"


def _ended(made: Path) -> None:
    kept = sorted(path.name for path in folder().iterdir())
    assert kept in ([VICTIM], [VICTIM, made.name]), kept
    assert (folder() / VICTIM).read_text() == VICTIM
    if made.is_dir():
        shutil.rmtree(made)
    else:
        made.unlink(missing_ok=True)


@target("tar of a guest", seeds=archives, errors=[GuestError], mended=fuzz_seeds.tar_mended)
def archive(data: bytes) -> object:
    try:
        return sent.unpack(data, folder() / "to", limit=1 << 20, files=500).verified
    finally:
        _ended(folder() / "to")


@target("folder of a guest", seeds=copies, errors=[GuestError])
def whole(data: bytes) -> object:
    try:
        return read_folder(Feed(io.BytesIO(data).read, 1 << 20), folder() / "to", 500).verified
    finally:
        _ended(folder() / "to")


@target("file of a guest", seeds=files, errors=[GuestError])
def file(data: bytes) -> object:
    try:
        return read_file(Feed(io.BytesIO(data).read, 1 << 20), folder() / "to", 4096).verified
    finally:
        _ended(folder() / "to")
