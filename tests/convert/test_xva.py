"""Exports of XenServer's: what they describe, and their disks piece by piece."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from changing import other
from made_xva import PIECE, description, machine, made
from reading import said

from tinamou.convert import xva
from tinamou.convert.assemble import assemble
from tinamou.errors import ImageError, SpecError

CONTENT = os.urandom(300_000) + bytes(3 * PIECE) + os.urandom(1000)
SIZES = {"Ref:9": len(CONTENT), "Ref:11": PIECE}
DISKS = {"Ref:9": CONTENT, "Ref:11": bytes(PIECE)}


def converted(found: dict[str, Any]):
    return assemble(xva.of_description(description(found), "/x.xva"), {})


def test_what_it_describes():
    result = converted(machine(SIZES))
    assert result.machine["name"] == "web-1" and result.machine["memory"] == {"size": "1G"}
    assert result.machine["cpu"] == {"count": 2, "max": 4} and result.machine["boot"] == {"firmware": "uefi"}
    assert result.machine["net"] == [{"mac": "00:16:3e:00:00:01", "mtu": 9000}]
    assert [one.disk.part for one in result.disks] == [(0, len(CONTENT)), (0, PIECE)]
    assert said(result, "xenbr0", rank="check") and said(result, "empty drive", rank="done")
    assert said(converted(machine(SIZES, HVM_boot_policy="")), "kind pv", rank="check")
    with pytest.raises(SpecError, match="no machine"):
        converted({"objects": []})


def _changed(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for key, value in found.items() if isinstance(found, dict) else enumerate(found):
        if isinstance(value, dict | list):
            yield from _changed(value, (*path, key))
        else:
            yield (*path, key), (not value) if isinstance(value, bool) else other(value)


def test_every_value_counts():
    found = machine(SIZES, other_config={"a": "b"}, actions_after_crash="restart")

    def seen(tree: dict[str, Any]) -> str:
        try:
            result = converted(tree)
        except SpecError as error:
            return str(error)
        return repr((result.machine, result.disks, result.notes))

    before, silent = seen(found), []
    for path, value in _changed(found):
        tree: Any = copy.deepcopy(found)
        holder = tree
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = value
        if seen(tree) == before:
            silent.append(path)
    names = {path[-1] for path in silent}
    assert names <= {"id", "VM"}, silent  # what the objects are called among each other


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_its_disks_are_those_that_were_exported(tmp_path, mode):
    path = made(tmp_path / "a.xva", machine(SIZES), DISKS, mode=mode)
    env = {**os.environ, "TINAMOU_STATE": str(tmp_path / "s"), "TINAMOU_CACHE": str(tmp_path / "c")}
    words = ["convert", str(path), "--import", "-o", str(tmp_path / "web.toml")]
    done = subprocess.run([sys.executable, "-m", "tinamou", *words], env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (tmp_path / "raw").write_bytes(CONTENT)
    image = next((tmp_path / "c").rglob("disk.qcow2"))
    for one, content in ((image, CONTENT), (tmp_path / "web-1-disk1.qcow2", bytes(PIECE))):
        (tmp_path / "raw").write_bytes(content)
        subprocess.run(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(one), str(tmp_path / "raw")], check=True)


def test_a_damaged_one_is_refused(tmp_path):
    names = {f"Ref:9 {len(CONTENT)}"}
    (tmp_path / "9").mkdir()
    path = made(tmp_path / "a.xva", machine(SIZES), DISKS, wrong=True)
    with pytest.raises(ImageError, match="checksum"):
        xva.unpack(path, tmp_path / "9", names)
    for number, disks in enumerate(({"Ref:9": CONTENT[:PIECE]}, {}, {"Ref:9": CONTENT + bytes(2 * PIECE) + b"x"})):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = made(folder / "a.xva", machine(SIZES), disks)
        with pytest.raises(ImageError, match=r"last piece|beyond its disk"):
            xva.unpack(path, folder, names)
    (tmp_path / "cut.xva").write_bytes(made(tmp_path / "b.xva", machine(SIZES), DISKS).read_bytes()[:-400_000])
    with pytest.raises(ImageError, match="damaged"):
        xva.unpack(tmp_path / "cut.xva", tmp_path, {f"Ref:11 {PIECE}"})
