"""What a package's changelog says was fixed between two versions."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tinamou.operations.changelog import security_fixes

TEXT = """qemu (1:7.2+dfsg-7+deb12u3) bookworm; urgency=medium

  * v7.2.3:
   - net: pad packets
   - io: fix use after free in websocket handshake code
     Closes: #1, CVE-2025-11234 (UAF)
  [ Somebody ]
  * plain

 -- A Maintainer <a@example.org>  Mon, 01 Jan 2024 00:00:00 +0000

qemu (1:7.2+dfsg-7+deb12u2) bookworm; urgency=medium

  * nbd: CVE-2024-7409: one

 -- CVE-2000-0000 <a@example.org>  Mon, 01 Jan 2024 00:00:00 +0000

qemu (1:7.2+dfsg-7) bookworm; urgency=medium

  * CVE-2020-1111

 -- A Maintainer <a@example.org>  Mon, 01 Jan 2024 00:00:00 +0000
"""
WEBSOCKET = "io: fix use after free in websocket handshake code Closes: #1, CVE-2025-11234 (UAF)"
NBD = "nbd: CVE-2024-7409: one"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "qemu-system-arm").mkdir()
    (tmp_path / "qemu-system-arm/changelog.Debian.gz").write_bytes(b"damaged")
    (tmp_path / "qemu-system-x86").mkdir()
    (tmp_path / "qemu-system-x86/changelog.Debian.gz").write_bytes(gzip.compress(TEXT.encode()))
    return tmp_path


@pytest.mark.parametrize(
    ("before", "now", "fixed"),
    [
        ("7", "7+deb12u3", (WEBSOCKET, NBD)),
        ("7+deb12u2", "7+deb12u3+b3", (WEBSOCKET,)),
        ("7+b1", "7+deb12u2", (NBD,)),
        ("7+deb12u3+b1", "7+deb12u3+b3", ()),
        ("7+deb12u9", "7+deb12u3", None),
        ("7", "8", None),
    ],
)
def test_lines_of_what_is_newer(folder: Path, before: str, now: str, fixed: tuple[str, ...] | None) -> None:
    assert security_fixes(f"Debian 1:7.2+dfsg-{before}", f"Debian 1:7.2+dfsg-{now}", folder) == fixed


def test_without_a_package_nothing_is_known(folder: Path) -> None:
    assert security_fixes("", "", folder) is None
