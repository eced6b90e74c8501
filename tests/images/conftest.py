"""Disks for the tests of images, and places of their own for cache and state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disk_making import ESP, SECTOR, fat, gpt, mbr
from pulling import Bench
from web_server import Site, serve


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"TINAMOU_{name}", str(tmp_path / f"tinamou-{name.lower()}"))


@pytest.fixture
def efi_disk(tmp_path: Path) -> Callable[..., Path]:
    """A raw disk with one EFI partition holding the given loader."""

    def build(name: str = "disk.raw", loader: str = "BOOTX64.EFI", size: int = 8 << 20, width: int = 12) -> Path:
        volume = fat(tmp_path / "volume", loader, size - (4 << 20), width)
        disk = tmp_path / name
        first = 2048
        disk.write_bytes(gpt(size, ESP, first, first + len(volume) // SECTOR - 1))
        with disk.open("r+b") as file:
            file.seek(first * SECTOR)
            file.write(volume)
            file.truncate(size)
        return disk

    return build


@pytest.fixture
def bios_disk(tmp_path: Path) -> Path:
    disk = tmp_path / "bios.raw"
    disk.write_bytes(mbr([(0x80, 0x83, 2048, 2048)], b"\xeb\x63\x90").ljust(4 << 20, b"\0"))
    return disk


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server for this test."""
    server, site = serve()
    yield site
    server.shutdown()
    server.server_close()


@pytest.fixture
def bench(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A catalogue with one image on that server, and no proxy and no configuration of the user."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return Bench(tmp_path, site)
