"""What holds for every machine of a host is told once a day, and always to who asks why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinamou.blueprint import Note, Why
from tinamou.cli import output
from tinamou.state.told import told_lately


def test_it_is_told_again_after_a_day(state: Path) -> None:
    assert not told_lately("slow")
    assert told_lately("slow")
    assert not told_lately("another")
    for kept in (state / "told").iterdir():
        os.utime(kept, (0, 0))
    assert not told_lately("slow")
    assert told_lately("slow")


def test_where_nothing_can_be_kept_it_is_told(state: Path) -> None:
    (state / "told").write_text("")
    assert not told_lately("slow")
    assert not told_lately("slow")


def test_notes(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    why = Why("trial", "KVM failed")
    notes = [Note("warning", "of the host", why, of_host=True), Note("warning", "of the machine", why)]
    for asks, expected in ((False, 1), (False, 0), (True, 1), (False, 0)):
        output.notes(notes, why=asks)
        said = capsys.readouterr().err
        assert said.count("of the host") == expected
        assert said.count("of the machine") == 1
