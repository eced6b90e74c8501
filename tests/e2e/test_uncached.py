"""Disks around the host's page cache: QEMU takes only files that were opened so, from 9.1 on, whoever hands them over."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tinamou.system.aio import direct_refusal

pytestmark = pytest.mark.vm


def tinamou(*words: str) -> str:
    argv = [sys.executable, "-m", "tinamou", *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def written(text: str) -> None:
    tinamou("exec", "direct", "--", "sh", "-c", f"echo {text} | dd of=/dev/vda bs=512 conv=fsync 2>/dev/null")


def read(machine: str = "direct") -> str:
    return tinamou("exec", machine, "--", "head", "-c", "3", "/dev/vda")


@pytest.mark.usefixtures("every_qemu")
def test_it_starts_and_all_is_done_with_its_disks_that_is_done_with_others(state: Path, tmp_path: Path) -> None:
    if why := direct_refusal(str(state)):
        pytest.skip(why)
    (tmp_path / "own.raw").write_bytes(bytes(1 << 20))
    disks = ("--disk", "size=64M,cache=none", "--disk", f"path={tmp_path}/own.raw,cache=directsync,aio=native")
    tinamou("run", "-d", "--name", "direct", *disks)
    try:
        written("one")
        tinamou("snapshot", "create", "direct", "first")
        written("two")
        tinamou("snapshot", "create", "direct", "second")
        tinamou("snapshot", "rm", "direct", "first")
        tinamou("disk", "add", "direct", "size=32M,cache=none")
        tinamou("disk", "resize", "direct", "disk0", "128M")
        tinamou("backup", "create", "direct", str(tmp_path / "backups"))
        (copy,) = json.loads(tinamou("fork", "direct", "--json"))["forks"]
        assert read(copy) == "two"
        tinamou("rm", "-f", copy)
        tinamou("suspend", "direct")
        tinamou("resume", "direct")
        assert read() == "two"
        tinamou("stop", "direct")
        tinamou("snapshot", "revert", "direct", "second")
        tinamou("start", "direct")
        assert read() == "two"
        tinamou("snapshot", "flatten", "direct")
        assert read() == "two"
    finally:
        tinamou("rm", "-f", "direct")
