"""An image made of a machine's disk."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from test_cloned import write
from typed import call

from tinamou.images.importing import imported
from tinamou.operations import keeping, machines
from tinamou.spec import load_spec
from tinamou.state.machines import find

pytestmark = pytest.mark.vm


def test_of_a_machine_that_is_off_or_paused(fake_qemu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_spec({"name": "one", "disk": [{"size": "8M"}], "net": ["user"], "memory": "192M"})
    asyncio.run(machines.launch(spec, wait=False))
    done = call("commit", "one", "mine", TINAMOU_CACHE=str(tmp_path))
    assert "one runs, and mine is not made of its disk" in done.stderr
    asyncio.run(machines.stop("one"))
    write(find("one").path / "disk0.qcow2", "a")
    monkeypatch.setenv("TINAMOU_CACHE", str(tmp_path))
    done = call("commit", "one", "mine")
    assert done.stdout == "mine\n", done.stderr
    facts = imported("mine", find("one").arch)
    assert facts is not None and facts.disk
    seen = subprocess.run(["qemu-io", "-r", "-c", f"read -P {ord('a')} 0 64k", facts.disk], capture_output=True, text=True)
    assert "Pattern verification failed" not in seen.stdout and seen.returncode == 0, seen.stdout
    assert not list(find("one").path.glob("*.part"))
    assert "has no disk disk7" in call("commit", "one", "other", "--disk", "disk7").stderr
    assert "cannot be an image's name" in call("commit", "one", "No Name").stderr
    asyncio.run(keeping.template("one"))
    assert call("commit", "one", "again").returncode == 0
    asyncio.run(machines.remove(["one"]))
