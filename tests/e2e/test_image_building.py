"""An image made of a file in real machines: its layers, what is found again, what fails, and machines of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from leftovers import Leftovers
from typed import call

from tinamou.images import layers
from tinamou.images.resolve import resolve
from tinamou.late import replace
from tinamou.system.paths import image_dir
from tinamou.units import Size

pytestmark = pytest.mark.vm

FILE = """
name = "made-of-tiny"
base = "tiny-with-a-disk"
files = ["one:/tmp/one"]
commands = ["dd if=/tmp/one of=/dev/vda conv=fsync", {second!r}]
memory = "192M"
network = false
"""


@pytest.fixture
def base(tmp_path: Path) -> Iterator[str]:
    """The tiny guest with a disk of its own, on which a test can see who wrote what."""
    tiny = resolve("tiny", "x86_64")
    disk = tmp_path / "empty.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "8M"], check=True)
    layers.add_base(
        "tiny-with-a-disk", "0123456789abcdef", replace(tiny, disk=str(disk), format="qcow2", size=Size(8 << 20))
    )
    layers.point("tiny-with-a-disk", "x86_64", "0123456789abcdef")
    yield "tiny-with-a-disk"
    for name in ("made-of-tiny", "tiny-with-a-disk"):
        call("image", "rm", name)
    assert not [*image_dir().glob("*tiny*/*/layer-*")]


def built(folder: Path, second: str) -> subprocess.CompletedProcess[str]:
    (folder / "one").write_text("first line\n")
    (folder / "web.toml").write_text(FILE.format(second=second))
    return call("image", "build", str(folder / "web.toml"), "--json")


def test_layers_are_made_once(base: str, tmp_path: Path, leftovers: Leftovers) -> None:
    second = "echo second | dd of=/dev/vda bs=4096 seek=1 conv=fsync"
    done = built(tmp_path, second)
    assert done.returncode == 0 and "4 layers made, 0 were here" in done.stderr, done.stderr
    disk = Path(json.loads(done.stdout)["disk"])
    again = built(tmp_path, second)
    assert "0 layers made, 4 were here" in again.stderr and json.loads(again.stdout)["disk"] == str(disk), again.stderr
    other = built(tmp_path, "echo another | dd of=/dev/vda bs=4096 seek=1 conv=fsync")
    assert "2 layers made, 2 were here" in other.stderr, other.stderr
    for image, line in (("made-of-tiny", "another"), (f"made-of-tiny@{disk.parent.name.removeprefix('layer-')}", "second")):
        words = [
            "run",
            image,
            "--memory",
            "192M",
            "--",
            "sh",
            "-c",
            "head -n 1 /dev/vda; dd if=/dev/vda bs=4096 skip=1 | head -n 1",
        ]
        said = call(*words)
        assert said.stdout == f"first line\n{line}\n", said.stderr
    rows = {row["path"]: row["state"] for row in json.loads(call("image", "ls", "--json").stdout)}
    assert rows[str(disk.parent)] == "layer" and [*rows.values()].count("current") >= 2
    held = call("image", "rm", "tiny-with-a-disk")
    assert held.returncode == 0, held.stderr  # the first layer is a name of its own of the base's file
    assert call("run", "made-of-tiny", "--memory", "192M", "--", "head", "-n", "1", "/dev/vda").stdout == "first line\n"
    assert leftovers.settle() == []


def test_an_image_of_an_image_holds_it(base: str, tmp_path: Path, leftovers: Leftovers) -> None:
    assert built(tmp_path, "true").returncode == 0
    text = FILE.format(second="true").replace("made-of-tiny", "upper").replace(base, "made-of-tiny")
    (tmp_path / "upper.toml").write_text(
        text.replace("one:/tmp/one", "one:/tmp/two").replace("if=/tmp/one", "seek=9 if=/tmp/two")
    )
    done = call("image", "build", str(tmp_path / "upper.toml"))
    assert done.returncode == 0, done.stderr
    refused = call("image", "rm", "made-of-tiny")
    assert refused.returncode != 0 and "images rest on the image made-of-tiny: upper" in refused.stderr, refused.stderr
    assert call("run", "upper", "--memory", "192M", "--", "head", "-n", "1", "/dev/vda").stdout == "first line\n"
    assert call("image", "rm", "upper").returncode == 0
    assert leftovers.settle() == []


def test_a_step_that_fails_is_named_and_those_before_it_stay(base: str, tmp_path: Path, leftovers: Leftovers) -> None:
    done = built(tmp_path, "echo so it is; exit 3")
    assert done.returncode != 0
    error = json.loads(done.stdout)
    assert "the step command 'echo so it is; exit 3' failed" in error["error"] and error["evidence"] == {
        "it said": "so it is"
    }
    assert layers.layer("made-of-tiny", "x86_64") is None
    assert leftovers.settle() == [] and not [*image_dir().glob("made-of-tiny/*/.building-*")]
    assert "2 layers made, 2 were here" in built(tmp_path, "true").stderr


def test_a_base_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text('name = "x"\nbase = "tiny"\ncommands = ["true"]\n')
    assert "its guest lives in memory" in call("image", "build", str(tmp_path / "tiny.toml")).stderr
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "a.qcow2"), "8M"], check=True)
    (tmp_path / "own.toml").write_text(f'name = "x"\nbase = "{tmp_path}/a.qcow2"\narch = "x86_64"\ncommands = ["true"]\n')
    assert "nothing is known of its guest" in call("image", "build", str(tmp_path / "own.toml")).stderr
