"""Partition tables of the images that are built."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from tinamou.images import gpt


def test_a_partition_table_is_one_that_other_tools_accept(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    identity = "11111111-2222-3333-4444-555555555555"
    root = gpt.Partition(gpt.ROOTS["x86_64"], 4096, 8192, "root", "11111111-2222-3333-4444-666666666666")
    bios = gpt.Partition(gpt.BIOS_BOOT, 2048, 2048, "bios", "11111111-2222-3333-4444-777777777777")
    with disk.open("wb") as file:
        file.truncate(32768 * gpt.SECTOR)
        gpt.write_table(file, 32768, identity, [bios, root])
        gpt.write_bios_boot(file, b"\xeb" * 440, b"\0" * 1024, bios)
    data = disk.read_bytes()
    assert data[510:512] == b"\x55\xaa"
    assert struct.unpack_from("<Q", data, 0x5C) == (2048,)
    assert struct.unpack_from("<Q", data, 2048 * 512 + 0x1F4) == (2049,)
    try:
        told = subprocess.run(["sfdisk", "--verify", "--json", disk], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("sfdisk is not installed")
    assert '"label": "gpt"' in subprocess.run(["sfdisk", "--json", disk], capture_output=True, text=True).stdout or told


def test_a_core_image_too_large_for_its_partition_is_refused(tmp_path: Path) -> None:
    small = gpt.Partition(gpt.BIOS_BOOT, 2048, 1, "bios", "11111111-2222-3333-4444-777777777777")
    with (tmp_path / "d").open("wb") as file, pytest.raises(ValueError, match="does not fit"):
        gpt.write_bios_boot(file, b"", b"\0" * 1024, small)
