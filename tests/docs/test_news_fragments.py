"""What the next version brings: each fragment is in the changelog that towncrier makes of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOWNCRIER = shutil.which("towncrier", path=str(Path(sys.executable).parent)) or shutil.which("towncrier")


def fragments(root: Path) -> dict[str, str]:
    return {one.name: one.read_text() for one in (root / "newsfragments").iterdir() if one.name != "README.md"}


def strange(root: Path) -> list[str]:
    """The fragments that are not named, or not written, as newsfragments/README.md says."""
    kinds = "|".join(
        one["directory"] for one in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]["type"]
    )
    name = re.compile(rf"(\d+|\+[a-z0-9-]+)\.({kinds})\.md")
    return [one for one, text in fragments(root).items() if not name.fullmatch(one) or not text.strip().endswith(".")]


def test_fragments_are_named_as_they_should_be(tmp_path):
    assert strange(ROOT) == []
    (tmp_path / "newsfragments").mkdir()
    for name, text in (
        ("17.added.md", "It is."),
        ("17.new.md", "It is."),
        ("notes.txt", "It is."),
        ("+a.fixed.md", "no end"),
    ):
        (tmp_path / "newsfragments" / name).write_text(text)
    assert set(strange(tmp_path)) == {"17.new.md", "notes.txt", "+a.fixed.md"}


@pytest.mark.skipif(TOWNCRIER is None, reason="towncrier is not installed (pip install towncrier)")
def test_the_changelog_is_made_of_all_of_them(tmp_path):
    for name in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "newsfragments", tmp_path / "newsfragments")
    before = (tmp_path / "CHANGELOG.md").read_text()
    words = [str(TOWNCRIER), "build", "--version", "9.9.9", "--date", "2030-01-02", "--keep"]
    subprocess.run([*words, "--dir", tmp_path], check=True, capture_output=True, timeout=60)
    made = (tmp_path / "CHANGELOG.md").read_text()
    assert made.startswith(before.rstrip()) and "## 9.9.9 (2030-01-02)" in made
    assert [name for name, text in fragments(ROOT).items() if " ".join(text.split()) not in made] == []
