"""A checkpoint goes to another host: what that has of its image, by content, stays; without it everything goes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from two_hosts import Two
from typed import call, tinamou

from tinamou.images import layers
from tinamou.images.resolve import resolve
from tinamou.late import replace
from tinamou.snapshots.save import STREAM
from tinamou.units import Size

pytestmark = pytest.mark.vm
BASE, OWN = int(os.environ.get("TINAMOU_BASE", "96")), 4
"""MiB of the image that are there, and that the machine writes anew."""
SUM = "head -c 96M /dev/vda | md5sum"
NAME = "tiny-sent"


@pytest.fixture
def image(tmp_path: Path) -> Iterator[str]:
    """The tiny guest with a disk whose content cannot be packed."""
    raw, disk = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    with raw.open("wb") as file:
        for _ in range(BASE):
            file.write(os.urandom(1 << 20))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(disk)], check=True)
    whole = replace(resolve("tiny", "x86_64"), disk=str(disk), format="qcow2", size=Size(BASE << 20))
    layers.add_base(NAME, "0123456789abcdef", whole)
    layers.point(NAME, "x86_64", "0123456789abcdef")
    yield NAME
    call("image", "rm", NAME)


def test_only_what_differs_from_the_image_goes_over(two: Two, image: str, tmp_path: Path) -> None:
    tinamou("run", "-d", "--name", "web", "--memory", "160M", "--net", "none", image)
    write = f"dd if=/dev/urandom of=/dev/vda bs=1M count={OWN} seek=40 conv=fsync 2>/dev/null; {SUM}"
    summed = tinamou("exec", "web", "--", "sh", "-c", write)
    tinamou("checkpoint", "web", "warm", "--kind", "portable")
    stream = Path(os.environ["TINAMOU_STATE"], "checkpoints/warm", STREAM)
    differs = stream.stat().st_size + (OWN << 20) + sum(Path(one).stat().st_size for one in boots())
    sent = json.loads(tinamou("checkpoints", "send", "warm", "there", "--json"))
    assert sent["resting"] == ["disk0"]
    assert differs < sent["size"] < 1.1 * differs, (differs, sent["size"])
    print(f"{BASE} MiB: {differs} bytes differ, {sent['size']} went over")
    (fork,) = json.loads(two.say("fork", "warm", "--json"))["forks"]
    assert two.say("exec", fork, "--", "sh", "-c", SUM) == summed
    two.say("rm", "-f", fork)
    two.say("checkpoints", "rm", "warm")
    tinamou("rm", "-f", "web")
    tinamou("checkpoints", "rm", "warm")


def boots() -> list[str]:
    """The files the guest is started with, which go along."""
    tiny = resolve("tiny", "x86_64")
    return [tiny.kernel, tiny.initrd]
