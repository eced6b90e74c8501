"""A QEMU that computes nothing, for tests of what is around it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


@pytest.fixture
def fake_qemu(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in, which every command of this test starts in QEMU's place."""
    fake = open_folder / "qemu-system-x86_64"  # all that is seen of it behind its walls
    fake.write_text(f"#!{os.path.realpath(sys.executable)} -IS\n" + Path(__file__).with_name("fake_qemu.py").read_text())
    fake.chmod(0o755)
    monkeypatch.setenv("TINAMOU_QEMU", str(fake))
    return fake
