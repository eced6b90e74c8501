"""The key of a move as QEMU's own programs take it: which cipher that is, and that no prime is looked for."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from tinamou.control import Session
from tinamou.snapshots import shared_key

pytestmark = pytest.mark.skipif(shutil.which("qemu-nbd") is None, reason="no qemu-nbd")

AES = re.search(r"^(flags|Features)\s*:.*\baes\b", Path("/proc/cpuinfo").read_text(), re.M) is not None


class Asked:
    """A session that notes what it is asked for."""

    def __init__(self, version: tuple[int, int, int]) -> None:
        self.version = version
        self.said: dict[str, Any] = {}

    async def execute(self, command: str, arguments: Any = None, **more: Any) -> dict[str, Any]:
        if command == "object-add":
            self.said = arguments
        return {}


def made(
    end: Literal["client", "server"], folder: Path, monkeypatch: pytest.MonkeyPatch, version: int = 7
) -> dict[str, Any]:
    """The object that QEMU is asked for, and the names in the folder it is handed."""
    asked = Asked((version, 2, 0))

    async def handed(*_: object) -> tuple[int, str]:
        return -1, str(folder)

    monkeypatch.setattr(shared_key, "_handed", handed)

    async def ask() -> dict[str, Any]:
        async with shared_key.shared_key(cast(Session, asked), folder, None, "ab" * 32, end):
            return {**asked.said, "files": sorted(path.name for path in folder.iterdir())}  # noqa: ASYNC240

    return asyncio.run(ask())


@pytest.mark.skipif(not AES, reason="this processor has no AES")
def test_disks_and_memory_are_encrypted_by_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = made("client", tmp_path / "f", monkeypatch)
    (tmp_path / "keys.psk").write_text(f"qemu:{'ab' * 32}\n")
    (tmp_path / "disk").write_bytes(bytes(1 << 16))
    key, sock = f"tls-creds-psk,id=k,dir={tmp_path}", tmp_path / "nbd.sock"
    server = ["qemu-nbd", "-t", "-f", "raw", "-k", str(sock), "-x", "d", "--object", f"{key},endpoint=server"]
    with subprocess.Popen(
        [*server, "--tls-creds", "k", "--fork", "--pid-file", str(tmp_path / "pid"), str(tmp_path / "disk")]
    ):
        pass
    try:
        where = f"driver=nbd,server.type=unix,server.path={sock},export=d,tls-creds=k"
        client = [
            "qemu-img",
            "info",
            "--object",
            f"{key},endpoint=client,priority={said['priority']}",
            "--image-opts",
            where,
        ]
        noisy = {**os.environ, "GNUTLS_DEBUG_LEVEL": "4"}
        done = subprocess.run(client, env=noisy, capture_output=True, text=True, check=True, timeout=60)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), 15)
    assert re.search(r"[Ss]elected cipher suite: GNUTLS_(\w+)", done.stderr)[1] == "AES_128_GCM_SHA256"  # type: ignore[index]


def test_a_qemu_that_would_look_for_a_prime_is_given_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "dh-params.pem" in made("server", tmp_path / "f", monkeypatch)["files"]
    assert made("server", tmp_path / "f", monkeypatch, version=11)["files"] == ["keys.psk"]
    assert made("client", tmp_path / "f", monkeypatch)["files"] == ["keys.psk"]
