"""A QEMU that computes nothing, for tests of what is around it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def stand_in(folder: Path) -> Path:
    """The stand-in, a program in that folder."""
    fake = folder / "qemu-system-x86_64"  # all that is seen of it behind its walls
    fake.write_text(f"#!{os.path.realpath(sys.executable)} -IS\n" + Path(__file__).with_name("fake_qemu.py").read_text())
    fake.chmod(0o755)
    return fake


@pytest.fixture
def fake_qemu(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in, which every command of this test starts in QEMU's place; it may be changed."""
    fake = stand_in(open_folder)
    monkeypatch.setenv("TINAMOU_QEMU", str(fake))
    return fake


@pytest.fixture(scope="session")
def one_fake() -> Iterator[Path]:
    """A stand-in for all tests of the session: what is asked of a QEMU once is known for all of them."""
    with tempfile.TemporaryDirectory(prefix="open-") as name:
        Path(name).chmod(0o755)
        yield stand_in(Path(name))


@pytest.fixture
def same_qemu(one_fake: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That one, which every command of this test starts in QEMU's place."""
    monkeypatch.setenv("TINAMOU_QEMU", str(one_fake))
    return one_fake
