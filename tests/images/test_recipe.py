"""Images described in files: what is refused, all at once; and what makes a layer another one."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from tinamou import late
from tinamou.errors import ImageError, SpecError
from tinamou.facts.image import ImageFacts
from tinamou.images.recipe import ImageSpec, load_recipe, read_recipe, steps_of


def test_every_problem_is_named_at_once() -> None:
    said = {"name": "No Name", "packages": ["jq; reboot"], "files": ["site", "a:/../etc"], "cpus": 0, "comands": ["true"]}
    with pytest.raises(SpecError) as found:
        load_recipe(said)
    assert {one.path for one in found.value.problems} == {"name", "cpus", "comands"}
    with pytest.raises(SpecError) as found:
        load_recipe({"name": "web", "packages": ["jq; reboot", "g++", "-o"], "files": ["site", "a:/../etc", "a:/b"]})
    assert [one.path for one in found.value.problems] == ["packages[0]", "packages[2]", "files[0]", "files[1]"]
    with pytest.raises(SpecError, match="nothing is to be done"):
        load_recipe({"name": "web"})


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        read_recipe(tmp_path / "none.toml")
    for text in (b"name = ", b"\xe9 = 1", b"[" * 100_000):
        (tmp_path / "odd.toml").write_bytes(text)
        with pytest.raises(SpecError, match="is not TOML"):
            read_recipe(tmp_path / "odd.toml")
    (tmp_path / "odd.toml").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(SpecError, match="larger than 1 MiB"):
        read_recipe(tmp_path / "odd.toml")


@pytest.fixture
def base(tmp_path: Path) -> ImageFacts:
    (tmp_path / "base.qcow2").write_bytes(b"QFI")
    (tmp_path / "site" / "deep").mkdir(parents=True)
    (tmp_path / "site" / "deep" / "page").write_text("one")
    (tmp_path / "site" / "link").symlink_to("deep/page")
    return ImageFacts("base", "x86_64", disk=str(tmp_path / "base.qcow2"), format="qcow2")


SAID = {"name": "web", "packages": ["jq"], "files": ["site:/srv"], "commands": ["echo a", "echo b"]}


def keys(base: ImageFacts, folder: Path, **other: object) -> list[str]:
    first, steps = steps_of(load_recipe({**SAID, **other}, folder=folder), base)
    assert [one.kind for one in steps] == ["packages", "files", "command", "command", "seal"]
    return [first, *(one.key for one in steps)]


def same(left: list[str], right: list[str]) -> int:
    """How many layers both begin with."""
    return next((place for place, pair in enumerate(zip(left, right, strict=True)) if pair[0] != pair[1]), len(left))


def test_a_layer_is_known_by_all_that_went_into_it(base: ImageFacts, tmp_path: Path) -> None:
    before = keys(base, tmp_path)
    assert len(set(before)) == len(before) == 6 and keys(base, tmp_path) == before
    assert same(before, keys(base, tmp_path, commands=["echo a", "echo c"])) == 4
    assert same(before, keys(base, tmp_path, packages=["jq", "vim"])) == 1
    assert same(before, keys(base, tmp_path, memory="3G", cpus=4, timeout=5, network=False)) == 6
    page = tmp_path / "site" / "deep" / "page"
    for change in (
        lambda: page.write_text("two"),
        lambda: page.chmod(0o600),
        lambda: (tmp_path / "site" / "more").mkdir(),
        lambda: page.rename(page.with_name("other")),
        lambda: ((tmp_path / "site" / "link").unlink(), (tmp_path / "site" / "link").symlink_to("deep/other")),
    ):
        change()
        now = keys(base, tmp_path)
        assert same(before, now) == 2
        before = now
    (tmp_path / "base.qcow2").write_bytes(b"QFI2")
    assert same(before, keys(base, tmp_path)) == 0


def test_what_is_no_file_is_refused(base: ImageFacts, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "site" / "pipe")
    with pytest.raises(ImageError, match="pipe is neither a file nor a folder"):
        keys(base, tmp_path)
    with pytest.raises(ImageError, match="none cannot be read"):
        keys(base, tmp_path, files=["none:/srv"])


def test_the_guides_example_is_one() -> None:
    guide = (Path(__file__).parents[2] / "docs/guides/images.md").read_text()
    text = guide.partition("```toml data\n")[2].partition("```")[0]
    assert load_recipe(tomllib.loads(text)).commands == ("systemctl enable nginx", "useradd -r web")
    named = {word for line in guide.splitlines() if line.startswith("| `") for word in line.split("|")[1].split("`")[1::2]}
    assert named == {field.name for field in late.fields(ImageSpec)}
