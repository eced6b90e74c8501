"""A streamOptimized vmdk: never written in place; below an overlay, and read, it is a disk like any other."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tinamou.errors import PlanError
from tinamou.images.chain import read_layer
from tinamou.machine.planning import plan_only
from tinamou.spec import load_spec


def vmdk(path: Path, subformat: str) -> Path:
    raw = path.with_suffix(".raw")
    raw.write_bytes(b"something" * 10_000 + bytes(6000))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw, path], check=True)
    return path


def test_only_one_of_them_is_packed(tmp_path: Path) -> None:
    assert read_layer(vmdk(tmp_path / "a.vmdk", "streamOptimized")).packed
    assert not read_layer(vmdk(tmp_path / "b.vmdk", "monolithicSparse")).packed


def test_it_is_not_written_in_place(tmp_path: Path) -> None:
    path = str(vmdk(tmp_path / "a.vmdk", "streamOptimized"))
    with pytest.raises(PlanError) as refused:
        plan_only(load_spec({"image": "tiny", "disk": [{"path": path}]}))
    (problem,) = refused.value.problems
    assert problem.value == path and "packed" in problem.reason and "image import" in problem.fix
    assert plan_only(load_spec({"image": "tiny", "disk": [{"path": path, "readonly": True}]}))
    other = str(vmdk(tmp_path / "b.vmdk", "monolithicSparse"))
    assert plan_only(load_spec({"image": "tiny", "disk": [{"path": other}]}))
