"""Where a process can be held and made to map its memory anew, and what is said where it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tinamou.system import holding


@pytest.mark.parametrize(
    ("machine", "release", "said"),
    [
        ("x86_64", "6.1.0-57-cloud-amd64", ""),
        ("x86_64", "5.13.0", ""),
        ("x86_64", "5.10.0-30-amd64", "shared memory cannot be moved away by Linux 5.10.0-30-amd64"),
        ("x86_64", "4.18.0-553.el8", "shared memory cannot be moved away by Linux 4.18"),
        ("aarch64", "6.1.0", "the registers of aarch64 are not known"),
    ],
)
def test_kernels_and_processors(machine: str, release: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine, release=release))
    monkeypatch.setattr(holding, "may", lambda *_: True)
    found = holding.why_not()
    assert found.startswith(said)
    assert bool(found) == bool(said)


@pytest.mark.root
def test_root_without_the_right_to_trace() -> None:
    """As in a container that was not given it."""
    program = "from tinamou.system.holding import why_not; print(why_not())"
    words = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", sys.executable, "-c", program]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "no CAP_SYS_PTRACE" in said
