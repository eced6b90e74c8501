"""qemu-img's trial of how fast this host derives a key is repeated only for the failure that chance makes."""

from pathlib import Path

import pytest

from tinamou.prepare.apply import run_timed_hash
from tinamou.system.exec import CommandError


def failing(folder: Path, message: str, times: int) -> list[str]:
    """A command that says ``message`` and fails, ``times`` times."""
    script = folder / "qemu-img"
    body = f'echo x >> {folder}/runs; [ $(wc -l < {folder}/runs) -gt {times} ] || {{ echo "{message}" >&2; exit 1; }}'
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return [str(script)]


def test_a_trial_without_a_measurable_time_is_repeated(tmp_path: Path) -> None:
    run_timed_hash(failing(tmp_path, "x: Unable to get accurate CPU usage", 3))
    assert len((tmp_path / "runs").read_text().split()) == 4


@pytest.mark.parametrize(("message", "runs"), [("No space left on device", 1), ("Unable to get accurate CPU usage", 5)])
def test_any_other_failure_and_one_that_stays_are_raised(tmp_path: Path, message: str, runs: int) -> None:
    with pytest.raises(CommandError, match=message):
        run_timed_hash(failing(tmp_path, message, 99), attempts=5)
    assert len((tmp_path / "runs").read_text().split()) == runs
