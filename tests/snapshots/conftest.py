"""Machines that end with the test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bare_machine import BareMachine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., BareMachine]]:
    for tool in ("qemu-system-x86_64", "qemu-img", "qemu-io"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    monkeypatch.setenv("TINAMOU_STATE", str(tmp_path / "state"))
    made: list[BareMachine] = []

    def build(count: int = 1, name: str = "m") -> BareMachine:
        made.append(BareMachine(tmp_path / name, count))
        return made[-1]

    yield build
    for one in made:
        one.kill()
