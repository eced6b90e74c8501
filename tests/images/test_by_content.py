"""Files of images here are found by what is in them, and read once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tinamou import digest
from tinamou.facts import ImageFacts
from tinamou.images import store
from tinamou.system.paths import image_dir

SAID = b"a kernel, or so it says"
SUM = hashlib.sha256(SAID).hexdigest()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINAMOU_CACHE", str(tmp_path))
    made = image_dir() / "small" / "x86_64" / "1-abc"
    made.mkdir(parents=True)
    (made / "vmlinuz").write_bytes(SAID)
    store.describe(made, ImageFacts(name="small", arch="x86_64", kernel="vmlinuz"))
    return made


def test_the_same_content_is_found(folder: Path) -> None:
    found = store.by_content({(len(SAID), SUM), (7, "0" * 64)})
    assert {sum: path for sum, (path, _) in found.items()} == {SUM: folder / "vmlinuz"}
    assert store.by_content({(len(SAID), "0" * 64)}) == {}
    assert store.by_content({(len(SAID) + 1, SUM)}) == {}


@pytest.mark.usefixtures("folder")
def test_a_guest_without_a_file_of_that_size_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "described", None)
    assert store.by_content({(len(SAID) + 1, SUM)}) == {}


def test_a_file_that_is_as_it_was_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.digest_of(folder / "vmlinuz") == SUM
    monkeypatch.setattr(store, "file_digest", None)
    assert store.digest_of(folder / "vmlinuz") == SUM
    os.utime(folder / "vmlinuz", ns=(1, 1))
    monkeypatch.setattr(store, "file_digest", digest.file_digest)
    (folder / "vmlinuz").write_bytes(SAID[::-1])
    assert store.digest_of(folder / "vmlinuz") == hashlib.sha256(SAID[::-1]).hexdigest()


def test_nothing_is_left_beside_a_file_of_nobodys_image(tmp_path: Path) -> None:
    (tmp_path / "initrd").write_bytes(SAID)
    assert store.digest_of(tmp_path / "initrd") == SUM
    assert [one.name for one in tmp_path.iterdir()] == ["initrd"]
