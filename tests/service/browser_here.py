"""Debian's Chromium by Playwright, a port that leads to a service's socket, axe-core, and where pictures are kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
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


def of_npm(folder: Path, package: str, into: Path) -> None:
    """Unpack a package as npm has it; the test is skipped where that cannot be."""
    if shutil.which("npm") is None:
        pytest.skip(f"npm: not in PATH (apt-get install npm): no {package}, nothing is checked with it")
    words = ["npm", "pack", "--silent", package]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"{package} cannot be had: {done.stderr.strip()[-200:]}")
    into.mkdir(parents=True)
    packed = folder / done.stdout.split()[-1]
    subprocess.run(["tar", "-xzf", packed, "-C", into, "--strip-components=1", "--no-same-owner"], check=True)


def axe(folder: Path) -> str:
    """The source of axe-core; the test is skipped where it cannot be had."""
    of_npm(folder, AXE, folder / "axe-core")
    source = (folder / "axe-core/axe.min.js").read_bytes()
    assert hashlib.sha256(source).hexdigest() == AXE_SHA256
    return source.decode()


def faults(page: Any, source: str) -> list[str]:
    """The serious and critical faults that axe finds on a page."""
    page.evaluate(f"() => {{ {source} }}")
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {one['help']}: {node['html'][:200]}" for one in grave for node in one["nodes"]]
