"""A command about machines loads nothing of what plans and starts them: that is half of what it computes."""

from __future__ import annotations

import subprocess
import sys

import pytest

VERBS = (
    "allow", "autostart", "backup", "checkpoint", "checkpoints", "cp", "disk", "exec", "image", "kill", "logs", "ls", "net",
    "pause", "reset", "resume", "rm", "show", "snapshot", "ssh", "stats", "stop", "suspend",
)  # fmt: skip
PLANNING = (
    "tinamou.blueprint",
    "tinamou.parts",
    "tinamou.planner",
    "tinamou.prepare.apply",
    "tinamou.launch",
    "tinamou.tuning",
)


def loaded(module: str) -> list[str]:
    code = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split() if name.startswith(PLANNING)]


@pytest.mark.parametrize("module", [f"tinamou.cli.{verb}" for verb in VERBS])
def test_it_loads_no_plan(module: str) -> None:
    assert loaded(module) == []


@pytest.mark.parametrize(
    "module",
    [
        "tinamou.machine.checkpoints",
        "tinamou.snapshots.backup_shelf",
        "tinamou.snapshots.orphans",
        "tinamou.snapshots.resting",
    ],
)
def test_what_a_list_reads_loads_no_plan(module: str) -> None:
    """Checkpoints and backups: a state that has some is listed as quickly as one without."""
    assert loaded(module) == []


def test_what_starts_a_machine_does() -> None:
    assert set(PLANNING) & set(loaded("tinamou.machine.starting"))
