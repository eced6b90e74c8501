"""Files others may have put there: only plain ones of the right owner and size are read, and nobody is waited for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tinamou.system.plain_file import OddFileError, copy_plain, read_plain

ME = {os.geteuid()}


def test_a_plain_file_is_read_and_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x" * 100)
    source.chmod(0o666)
    assert read_plain(source, owners=ME, most=100) == b"x" * 100
    copy_plain(source, target, owners=ME, most=100)
    assert (target.read_bytes(), target.stat().st_mode & 0o777) == (b"x" * 100, 0o600)
    with pytest.raises(FileExistsError):
        copy_plain(source, target, owners=ME, most=100)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        copy_plain(source, tmp_path / "link", owners=ME, most=100)
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "none", owners=ME, most=100)


def test_what_is_odd_is_refused_and_named(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"x" * 101)
    (tmp_path / "link").symlink_to(plain)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for name in ("link", "pipe", "folder", "socket"):
        with pytest.raises(OddFileError, match=f"{name} is no plain file"):
            read_plain(tmp_path / name, owners=ME, most=1000)
    with pytest.raises(OddFileError, match="holds 101 bytes, where 100 are the most"):
        read_plain(plain, owners=ME, most=100)
    with pytest.raises(OddFileError, match=f"belongs to user {os.geteuid()}, not to 5 or 7"):
        read_plain(plain, owners={7, 5}, most=1000)
    (tmp_path / "second").hardlink_to(plain)
    with pytest.raises(OddFileError, match="has 2 names"):
        read_plain(plain, owners=ME, most=1000)
    assert len(read_plain(plain, owners=None, most=1000)) == 101
    with pytest.raises(OddFileError, match="grows"):
        read_plain(Path("/proc/self/status"), owners=ME, most=10)
