"""Debian's Chromium by Playwright, a port that leads to a service's socket, axe-core, and where pictures are kept."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
AXE, AXE_SHA256 = "axe-core@4.14.1", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
"""axe-core's checks, as npm has them, and the digest of its ``axe.min.js``."""


@contextlib.contextmanager
def forwarded(path: Path) -> Iterator[int]:
    """A TCP port of this host that leads to a unix socket, as ``ssh -L`` makes one."""
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.socket(socket.AF_UNIX)
                there.connect(str(path))
                for pair in ((here, there), (there, here)):
                    threading.Thread(target=carry, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("chromium: not in PATH (apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def shot(page: Any, name: str) -> None:
    """A picture, kept where TINAMOU_PICTURES says."""
    if folder := os.environ.get("TINAMOU_PICTURES"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def axe(folder: Path) -> str:
    """The source of axe-core, fetched with npm; the test is skipped where that cannot be."""
    if shutil.which("npm") is None:
        pytest.skip("npm: not in PATH (apt-get install npm): no axe-core, nothing is said about accessibility")
    done = subprocess.run(["npm", "pack", "--silent", AXE], cwd=folder, capture_output=True, text=True, timeout=120)
    packed = next(folder.glob("axe-core-*.tgz"), None)
    if done.returncode or packed is None:
        pytest.skip(f"{AXE} cannot be had: {done.stderr.strip()[-200:]}")
    with tarfile.open(fileobj=io.BytesIO(packed.read_bytes())) as archive:
        file = archive.extractfile("package/axe.min.js")
        assert file is not None
        source = file.read()
    assert hashlib.sha256(source).hexdigest() == AXE_SHA256
    return source.decode()


def faults(page: Any, source: str) -> list[str]:
    """The serious and critical faults that axe finds on a page."""
    page.evaluate(f"() => {{ {source} }}")
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {one['help']}: {node['html'][:200]}" for one in grave for node in one["nodes"]]
