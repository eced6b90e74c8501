"""The script of somebody who comes from libvirt: made, changed, copied, started with the host, moved by a file, removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "libvirt_day.sh"


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_script_runs_and_each_step_shows_inside(tmp_path: Path, leftovers) -> None:
    environment = {
        **os.environ,
        **{"PYTHON": sys.executable, "PLACE": str(tmp_path), "TINAMOU_UNITS": str(tmp_path / "units")},
    }
    words = ["bash", str(SCRIPT)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert len([line for line in SCRIPT.read_text().splitlines() if line and line[0] != "#"]) <= 60
    assert leftovers.found() == []
