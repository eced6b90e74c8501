"""Real images that show something without a kernel: they are files of Debian's and Ubuntu's packages."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

WITHIN = {
    "grub-rescue-pc": "usr/lib/grub-rescue/grub-rescue-cdrom.iso",
    "ipxe": "usr/lib/ipxe/ipxe.iso",
    "memtest86+": "usr/lib/memtest86+/memtest86+x64.iso",
    "debian-installer-12-netboot-amd64": "usr/lib/debian-installer/images/12/amd64/text",
}


@pytest.fixture(scope="session")
def packaged(cache: Path) -> Callable[[str], Path]:
    """``packaged("ipxe")`` is that package's image; downloaded once, installed never."""

    def path(package: str) -> Path:
        folder = cache / "test-images" / package
        if not (folder / WITHIN[package]).exists():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)  # apt's own user writes there
            done = subprocess.run(["apt-get", "download", package], cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"{package} is not to be had here: {done.stderr[-200:]}")
            [archive] = folder.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
            archive.unlink()
        return folder / WITHIN[package]

    return path
