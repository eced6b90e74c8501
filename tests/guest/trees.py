"""Folders made for copies, and what is compared of them."""

from __future__ import annotations

import os
import stat

import pytest

from tinamou.guest.carry import holes


def tree(folder):
    """Names with kind, mode, content; what a copy must keep."""
    found = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        mode = None if path.is_symlink() else f"{state.st_mode & 0o7777:o}"
        found[str(path.relative_to(folder))] = (mode, content)
    return found


def fill(folder):
    (folder / "a b").mkdir(mode=0o750)
    (folder / "a b" / "ünï\ncode").write_bytes(bytes(range(256)))
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "secret").write_text("x")
    (folder / "secret").chmod(0o600)
    (folder / "empty").touch(0o644)
    (folder / "absolute").symlink_to("/etc/hostname")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "void").mkdir()


def seen(*roots):
    """All that lies in some folders, but for what the guest may make."""
    found = {}
    for root in roots:
        for path in (root, *sorted(root.rglob("*"))):
            now = path.lstat()
            content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if stat.S_ISREG(now.st_mode) else b""
            found[str(path)] = (now.st_mode, now.st_nlink if content else 0, now.st_ino, content)
    return found


def sparse(path, size=10 << 30):
    """A file with a MiB of data, most of it holes; its last byte is data."""
    with path.open("wb") as file:
        file.truncate(size)
        for at in (*range(0, size, size >> 4), size - 1):
            file.seek(at)
            file.write(os.urandom(min(65536, size - at)))
    if path.stat().st_blocks * 512 > 8 << 20:
        pytest.skip("this file system keeps no holes")


def same(one, two):
    """Whether two sparse files are alike, looking at data alone."""
    with one.open("rb") as ours, two.open("rb") as theirs:
        assert ours.seek(0, 2) == theirs.seek(0, 2)
        found = [holes.stretches(file.fileno(), 65536) for file in (ours, theirs)]
        assert found[0] == found[1]
        for first, count in found[0]:
            ours.seek(first << 16)
            theirs.seek(first << 16)
            assert ours.read(count << 16) == theirs.read(count << 16)
    assert two.stat().st_blocks * 512 < 8 << 20
