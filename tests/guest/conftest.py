"""The two sides of a copy, and the tools a guest may have."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tinamou.guest.carry import exchange


@pytest.fixture
def here(state):
    folder = state / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def there(state):
    folder = state / "there"
    folder.mkdir()
    return folder


@pytest.fixture(params=["GNU", "busybox"])
def tools(request, state, monkeypatch):
    """The tools that the guest's scripts find: those of a distribution, or of busybox alone."""
    if request.param == "GNU":
        return
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.skip("no busybox on this host (script/setup installs it)")
    folder = state / "busybox"
    folder.mkdir()
    for name in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        (folder / name).symlink_to(busybox)

    def argv(name, words):
        return ["/usr/bin/env", f"PATH={folder}", busybox, "sh", *ours(name, words)[1:]]

    ours = exchange._argv
    monkeypatch.setattr(exchange, "_argv", argv)
