"""Drivers put into an installed Windows by a program: the door alone, and what it refuses before anything is made."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import tinamou
from tinamou import ImageError, aio
from tinamou.facts.image import ImageFacts
from tinamou.facts.windows import WindowsFacts
from tinamou.machine import injecting
from tinamou.parts.windows_drivers import Injection
from tinamou.system.paths import image_dir

DONE = Injection((), (), {}, ("viostor",), ("the disc has no netkvm for it",))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the work was asked to do; it is done for the first time, and then found again."""
    calls: list[tuple[Any, ...]] = []

    async def inject(source: str, name: str, drivers: Path, *, progress: Any) -> injecting.Injected:
        calls.append((source, name, drivers))
        progress("putting viostor into it", None)
        windows = WindowsFacts(product="Windows 11", version=(10, 0), build=22631)
        return injecting.Injected(ImageFacts(name, "x86_64"), windows, DONE if len(calls) == 1 else None)

    monkeypatch.setattr(injecting, "inject", inject)
    return calls


def test_its_name_is_returned_and_its_notes_are_told(asked: list[tuple[Any, ...]]) -> None:
    told: list[tuple[str, float | None]] = []
    heard = lambda text, fraction: told.append((text, fraction))  # noqa: E731
    made = tinamou.inject_drivers(Path("win.vhdx"), "win11", "virtio-win.iso", progress=heard)
    assert made == "win11" and asked == [("win.vhdx", "win11", Path("virtio-win.iso"))]
    assert told == [("putting viostor into it", None), ("the disc has no netkvm for it", None)]
    again = asyncio.run(aio.inject_drivers("win", "win11", Path("virtio-win.iso"), progress=heard))
    assert again == "win11" and asked[1] == ("win", "win11", Path("virtio-win.iso")) and len(told) == 3


@pytest.mark.parametrize("name", ["../../elsewhere", "", "With Capitals", "a" * 65])
def test_a_name_that_is_none_is_refused_before_anything_is_looked_at(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINAMOU_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ImageError, match="cannot be an image's name"):
        tinamou.inject_drivers("tiny", name, tmp_path / "no-disc.iso")
    assert not image_dir().exists() or not [*image_dir().iterdir()]


def test_a_disc_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no-disc\.iso"):
        tinamou.inject_drivers("tiny", "win", tmp_path / "no-disc.iso")
