"""An installation that is cut short: what the machine is then starts no installer over its disk again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tinamou.errors import StateError
from tinamou.images.installer import Start
from tinamou.images.resolve import resolve
from tinamou.machine import booting, installing
from tinamou.machine.connected import Connected
from tinamou.spec import load_spec
from tinamou.state.machines import find

pytestmark = pytest.mark.vm


def test_a_machine_whose_installation_was_killed_starts_from_its_disk(
    fake_qemu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = resolve("tiny", "x86_64")
    kernel, initrd, answers = tmp_path / "vmlinuz", tmp_path / "initrd", tmp_path / "answers"
    kernel.write_bytes(Path(tiny.kernel).read_bytes())
    initrd.write_bytes(Path(tiny.initrd).read_bytes())
    answers.touch()
    monkeypatch.setattr(installing.installer, "prepared", lambda *_: Start(str(kernel), str(initrd), "auto=true"))
    monkeypatch.setattr(installing, "plan_only", lambda spec: SimpleNamespace(elements=()))  # tiny stands for a disc
    seen: list[dict[str, Any]] = []

    async def launched(machine: Connected) -> None:
        now = find(machine.name)
        seen.extend([now.spec, now.next_spec])
        raise StateError("the installer is cut short")

    monkeypatch.setattr(booting, "until_launched", launched)
    spec = load_spec({"name": "m", "memory": "192M", "disk": [{"size": "8M"}]})
    with pytest.raises(StateError, match="cut short"):
        asyncio.run(installing.install(spec, answers=answers, timeout=60))
    installed_as, then = seen
    assert installed_as["boot"]["kernel"] == str(kernel)
    assert then["boot"] == {"order": "disk1,disk0"}
    assert find("m").spec == then == find("m").next_spec
