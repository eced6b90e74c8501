"""A package that is not in the archive is told by its name alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinamou.errors import ImageError
from tinamou.images import packages
from tinamou.system.exec import CommandError


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("E: Unable to locate package nosuch\n", "has no package nosuch"),
        ("E: Unable to locate package a\nE: Package 'b' has no installation candidate\n", "has no packages a, b"),
    ],
)
def test_the_wrong_name_stands_alone(said: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str], **_: object) -> str:
        raise CommandError(tuple(argv), 100, "", said)

    monkeypatch.setattr(packages, "run", run)
    with pytest.raises(ImageError) as error:
        packages.Apt(tmp_path, ()).closure(["systemd", "udev", "nosuch", "a", "b"])
    assert error.value.what.endswith(told)
    assert "systemd" not in str(error.value)
    assert "network" not in error.value.fix


def test_other_failures_keep_their_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str], **_: object) -> str:
        raise CommandError(tuple(argv), 100, "", "E: Unmet dependencies\n")

    monkeypatch.setattr(packages, "run", run)
    with pytest.raises(ImageError, match="cannot be installed") as error:
        packages.Apt(tmp_path, ()).closure(["systemd", "udev"])
    assert error.value.why == "Unmet dependencies"
    assert error.value.fix == ""
    assert "systemd" not in error.value.what


def test_a_mirror_that_is_not_reached_is_a_matter_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str], **_: object) -> str:
        raise CommandError(tuple(argv), 100, "", "E: Failed to fetch http://deb.debian.org  Could not resolve host\n")

    monkeypatch.setattr(packages, "run", run)
    with pytest.raises(ImageError) as error:
        packages.Apt(tmp_path, ()).closure(["systemd"])
    assert "network" in error.value.fix
