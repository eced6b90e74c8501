"""A vhdx whose last writer ended before it was closed: refused, whatever QEMU makes of its log."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from disk_making import qemu_img

from tinamou.errors import ImageError
from tinamou.images.inspect import inspect_image


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("newest", [True, False])
def test_a_log_that_was_not_played_back(tmp_path: Path, newest: bool) -> None:
    """The header that holds names a log; QEMU finds nothing to play back in it, and reads the file as if it were whole."""
    path = tmp_path / "disk.vhdx"
    qemu_img("create", "-q", "-f", "vhdx", path, "8M")
    with path.open("r+b") as file:
        for at, number in ((0x10000, 7), (0x20000, 8)):
            file.seek(at)
            header = bytearray(file.read(4096))
            struct.pack_into("<IQ", header, 4, 0, number)
            header[48:64] = bytes(range(16)) if (number == 8) == newest else bytes(16)
            struct.pack_into("<I", header, 4, _crc32c(bytes(header)))
            file.seek(at)
            file.write(header)
    assert "No errors" in qemu_img("check", path)
    if newest:
        with pytest.raises(ImageError, match="was not closed"):
            inspect_image(path)
    else:
        assert inspect_image(path).format == "vhdx"


@pytest.mark.parametrize(("magic", "said"), [(b"VMA\0", "backup of Proxmox VE"), (b"\x89LZO\0\r\n\x1a\n", "lzop archive")])
def test_backups_are_no_disks(tmp_path: Path, magic: bytes, said: str) -> None:
    path = tmp_path / "backup"
    path.write_bytes(magic + bytes(1 << 20))
    with pytest.raises(ImageError, match="is not a disk image") as refused:
        inspect_image(path)
    assert said in str(refused.value.why)
