"""A vhdx whose last writer ended before it was closed: its log is played back into a copy, or is said to be damaged."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

import made_vhdx_logs as logs
import pytest
from disk_making import qemu_img

from tinamou.errors import ImageError
from tinamou.images import importing, vhdx_log
from tinamou.images.inspect import inspect_image

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> bytes:
    """What the disk holds; the file ``closed.vhdx`` has it, ``open.vhdx`` lacks what the logs of the tests say."""
    content = os.urandom(3 * MIB) + bytes(5 * MIB)
    (tmp_path / "raw").write_bytes(content)
    empty, closed = tmp_path / "empty.vhdx", tmp_path / "closed.vhdx"
    for path in (empty, closed):
        qemu_img("create", "-q", "-f", "vhdx", path, "8M")
    qemu_img("convert", "-n", "-f", "raw", "-O", "vhdx", tmp_path / "raw", closed)
    shutil.copy(closed, tmp_path / "open.vhdx")
    with (tmp_path / "open.vhdx").open("r+b") as file:
        file.seek(2 * MIB)
        file.write(empty.read_bytes()[2 * MIB :][: logs.SECTOR])  # the table of blocks
        file.seek(8 * MIB + 4 * MIB)
        file.write(b"old" * 5000)
    return content


def table(tmp_path: Path) -> bytes:
    return (tmp_path / "closed.vhdx").read_bytes()[2 * MIB :][: logs.SECTOR]


def entries(tmp_path: Path, tail: int) -> tuple[bytes, bytes]:
    """Two, the first of which lies at ``tail``: an older table and stretches of zeros; the newer table."""
    size = (tmp_path / "open.vhdx").stat().st_size
    first = logs.entry(41, tail, size, [(2 * MIB, b"older" * 819 + b"."), (12 * MIB, 4 * logs.SECTOR)])
    return first, logs.entry(42, tail, size, [(2 * MIB, table(tmp_path))])


@pytest.mark.parametrize("tail", [0, logs.LOG - 4096, logs.LOG - 12288])
def test_a_log_is_played_back_into_the_image(state: Path, tmp_path: Path, disk: bytes, tail: int) -> None:
    """Where the ring ends too; of what an earlier writer left in the log nothing is done; QEMU makes the same of it."""
    path = tmp_path / "open.vhdx"
    first, second = entries(tmp_path, tail)
    stale = logs.entry(7, 65536, path.stat().st_size, [(2 * MIB, b"stale" * 819 + b".")])
    logs.put(path, [(65536, stale), (tail, first), (tail + len(first), second)])
    before = path.read_bytes()
    with pytest.raises(ImageError, match="was not closed") as refused:
        inspect_image(path)
    assert "tinamou image import" in refused.value.fix
    made = asyncio.run(importing.import_image(path, "made", arch="x86_64"))
    asyncio.run(importing.convert(path, tmp_path / "converted.raw", "raw"))
    qemu_img("convert", "-O", "raw", made.disk, tmp_path / "imported.raw")
    assert path.read_bytes() == before
    assert sorted(one.name for one in tmp_path.glob("*.vhdx")) == ["closed.vhdx", "empty.vhdx", "open.vhdx"]
    shutil.copy(path, tmp_path / "theirs.vhdx")
    subprocess.run(["qemu-img", "check", "-q", "-r", "all", tmp_path / "theirs.vhdx"], check=True)
    qemu_img("convert", "-f", "vhdx", "-O", "raw", tmp_path / "theirs.vhdx", tmp_path / "theirs.raw")
    for name in ("imported.raw", "converted.raw"):
        assert (tmp_path / name).read_bytes() == disk, name
    # of an entry that goes on at the ring's beginning QEMU plays nothing back (findings/qemu-vhdx-wrapped-log.sh)
    assert ((tmp_path / "theirs.raw").read_bytes() == disk) == (tail != logs.LOG - 4096)


def test_a_log_without_a_whole_sequence_is_damaged(state: Path, tmp_path: Path, disk: bytes) -> None:
    path = tmp_path / "open.vhdx"
    first, second = entries(tmp_path, 0)
    logs.put(path, [(0, first[:5000] + b"!" + first[5001:]), (len(first), second)])
    with pytest.raises(ImageError, match="its log is damaged"):
        asyncio.run(importing.import_image(path, "made", arch="x86_64"))
    with pytest.raises(ImageError, match="its log is damaged"):
        asyncio.run(importing.convert(path, tmp_path / "made.raw", "raw"))
    assert not (tmp_path / "made.raw").exists()


@pytest.mark.parametrize(
    "writes",
    [[(1 << 60, bytes(4096))], [(2 * MIB + 8, bytes(4096))], [(0, 1 << 50)]],
    ids=["beyond its end", "across sectors", "zeros beyond its end"],
)
def test_a_log_that_writes_elsewhere_is_refused(state: Path, tmp_path: Path, disk: bytes, writes) -> None:
    path = tmp_path / "open.vhdx"
    logs.put(path, [(0, logs.entry(5, 0, path.stat().st_size, writes))])
    with pytest.raises(ImageError, match="cannot be played back"):
        vhdx_log.played_back(path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_log_of_entries_as_long_as_itself_is_soon_refused(tmp_path: Path, disk: bytes) -> None:
    path = tmp_path / "open.vhdx"
    head = struct.pack("<4sIIIQII16sQQ", b"loge", 0, logs.LOG, 0, 9, 0, 0, logs.GUID, 0, 0)
    logs.put(path, [(0, head.ljust(4096, b"\0") * 256)])
    began = time.process_time()
    with pytest.raises(ImageError, match="its log is damaged"):
        vhdx_log.played_back(path, tmp_path / "copy")
    assert time.process_time() - began < 30


def test_the_checksum_is_castagnolis() -> None:
    assert vhdx_log._crc32c(b"123456789") == 0xE3069283 == logs.crc32c(b"123456789")


def test_of_two_headers_the_newer_holds(tmp_path: Path) -> None:
    """One that was closed since is read, whatever the older header says."""
    path = tmp_path / "disk.vhdx"
    qemu_img("create", "-q", "-f", "vhdx", path, "8M")
    with path.open("r+b") as file:
        for at, number, log in ((0x10000, 7, logs.GUID), (0x20000, 8, bytes(16))):
            file.seek(at)
            header = bytearray(file.read(4096))
            struct.pack_into("<Q", header, 8, number)
            header[48:64] = log
            file.seek(at)
            file.write(logs.summed(header))
    assert inspect_image(path).format == "vhdx"


@pytest.mark.parametrize(("magic", "said"), [(b"VMA\0", "backup of Proxmox VE"), (b"\x89LZO\0\r\n\x1a\n", "lzop archive")])
def test_backups_are_no_disks(tmp_path: Path, magic: bytes, said: str) -> None:
    path = tmp_path / "backup"
    path.write_bytes(magic + bytes(1 << 20))
    with pytest.raises(ImageError, match="is not a disk image") as refused:
        inspect_image(path)
    assert said in str(refused.value.why)
