"""Checkpoints that move: exported, taken in where nothing of the first host is, refused when a byte is not what it was."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tinamou import Machine
from tinamou.errors import StateError
from tinamou.machine import checkpoints
from tinamou.machine.connected import Connected
from tinamou.machine.facade import AsyncMachine
from tinamou.machine.forking import fork_many
from tinamou.snapshots import archive, travel
from tinamou.snapshots.checkpoint import Checkpoint, checkpoints_dir
from tinamou.system.loop_thread import wait_for

pytestmark = [pytest.mark.vm, pytest.mark.slow]


@pytest.fixture
def exported(state: Path) -> Iterator[Path]:
    """A file with the checkpoint of a machine with a disk, which is gone."""
    with Machine(name="traveller", disks=[{"size": "64M"}]) as machine:
        machine.run("echo first >/dev/vda; sync")
        machine.checkpoint("earlier")
        machine.run("echo other | dd of=/dev/vda bs=4096 seek=1 conv=notrunc 2>/dev/null; sync; echo kept >/tmp/x")
        taken = machine.checkpoint("moved")
    target = state / "moved.tinamou"
    wait_for(travel.export(taken, target))
    yield target
    for one in ("moved", "earlier"):
        checkpoints.remove(one, force=True)


@pytest.fixture
def elsewhere(exported: Path) -> Iterator[Path]:
    """Another host, as far as tinamou's folders go: no images, no machines, no checkpoints."""
    assert exported.exists()
    with tempfile.TemporaryDirectory(prefix="tm-", dir="/tmp") as name, pytest.MonkeyPatch.context() as monkeypatch:
        place = Path(name)
        place.chmod(0o755)
        for variable in ("TINAMOU_STATE", "TINAMOU_RUN", "TINAMOU_CACHE"):
            (place / variable[8:]).mkdir()
            monkeypatch.setenv(variable, str(place / variable[8:]))
        yield place


def test_it_stands_alone_elsewhere(exported: Path, elsewhere: Path) -> None:
    taken = wait_for(travel.take_in(exported))
    assert (taken.name, taken.machine, taken.kind) == ("moved", "traveller", "portable")
    for same in (False, True):
        [restored] = wait_for(fork_many(taken, 1, names=["traveller"] if same else [], same=same))
        machine = Machine.around(AsyncMachine.around(Connected.of_fork(restored)))
        with machine:
            said = machine.run(
                "cat /tmp/x; head -n 1 /dev/vda; dd if=/dev/vda bs=4096 skip=1 2>/dev/null | head -n 1; hostname"
            )
            assert said.text.split("\n") == ["kept", "first", "other", "traveller" if same else machine.name]
            assert str(elsewhere) in " ".join(str(flag.value) for flag in restored.plan.flags if flag.name == "kernel")
            machine.reset()
            assert machine.run("head -n 1 /dev/vda").text == "first"
    assert wait_for(travel.take_in(exported, "twin")).name == "twin"
    with pytest.raises(StateError, match="there is a checkpoint twin already"):
        wait_for(travel.take_in(exported, "twin"))
    with pytest.raises(StateError, match="cannot be named"):
        wait_for(travel.take_in(exported, "../twin"))


def repacked(source: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """The archive with members changed, or left out where ``change`` says None."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            file = old.extractfile(member)
            assert file is not None
            content = change(member.name, file.read())
            if content is not None:
                member.size = len(content)
                new.addfile(member, io.BytesIO(content))
    return target


def refused(file: Path, match: str) -> None:
    with pytest.raises(StateError, match=match):
        wait_for(travel.take_in(file, "bad"))
    assert not (checkpoints_dir() / "bad").exists()


def test_damage_is_refused_by_name(exported: Path, tmp_path: Path) -> None:
    with tarfile.open(exported) as whole:
        names = whole.getnames()
    assert {"SHA256SUMS", "manifest.json", "state.zst", "disk0.qcow2", "kernel", "initrd", "image.json"} <= set(names)
    for victim in names:

        def flip(name: str, content: bytes, victim: str = victim) -> bytes:
            middle = len(content) // 2
            return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :] if name == victim else content

        refused(repacked(exported, tmp_path / "flipped", flip), "." if victim == "SHA256SUMS" else rf"{victim}: is damaged")
    refused(repacked(exported, tmp_path / "less", lambda n, c: None if n == "kernel" else c), "kernel: is missing")


def test_a_truncated_file_is_refused_by_name(exported: Path, tmp_path: Path) -> None:
    size = exported.stat().st_size
    for length in (0, 100, 1000, size // 3, size // 2, size - 30_000_000 if size > 40_000_000 else size * 2 // 3):
        short = tmp_path / "short"
        shutil.copy(exported, short)
        with short.open("r+b") as file:
            file.truncate(length)
        refused(short, r"is cut short|is missing|is no whole archive|SHA256SUMS")


def test_what_was_never_exported_is_refused(exported: Path, tmp_path: Path) -> None:
    def manifest(change: Callable[[dict[str, object]], None]) -> Path:
        """A well-formed archive that says something else."""
        folder = tmp_path / "unpacked"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        names = archive.unpack(exported, folder)
        data = json.loads((folder / "manifest.json").read_text())
        change(data)
        (folder / "manifest.json").write_text(json.dumps(data))
        archive.pack({name: folder / name for name in sorted(names)}, tmp_path / "made")
        return tmp_path / "made"

    def another(data: dict[str, object]) -> None:
        data["format"] = 99

    def outside(data: dict[str, object]) -> None:
        entry = data["checkpoint"]
        assert isinstance(entry, dict)
        entry["disks"]["disk0"]["file"] = "/etc/passwd"
        entry["disks"]["disk0"]["format"] = "raw"

    def nothing(data: dict[str, object]) -> None:
        data["checkpoint"] = {"name": "bad"}

    refused(manifest(another), "another version of tinamou")
    refused(manifest(outside), "does not stand alone")
    refused(manifest(nothing), "was not exported by tinamou")
    text = tmp_path / "text"
    text.write_text("no archive " * 1000)
    refused(text, "is no whole archive")
    refused(tmp_path / "missing", "cannot be unpacked")
    with tarfile.open(tmp_path / "foreign", "w") as foreign:
        foreign.addfile(tarfile.TarInfo("../../etc/cron.d/x"))
    refused(tmp_path / "foreign", "was not exported by tinamou")
    sums = ("0" * 64 + "  x\n").encode()
    with tarfile.open(tmp_path / "climbing", "w") as climbing:
        first = tarfile.TarInfo("SHA256SUMS")
        first.size = len(sums)
        climbing.addfile(first, io.BytesIO(sums))
        climbing.addfile(tarfile.TarInfo("../escaped"))
    refused(tmp_path / "climbing", r"'\.\./escaped' is no plain file")


def test_instant_and_damaged_checkpoints_are_not_exported(tmp_path: Path) -> None:
    with Machine(forkable=True) as machine:
        instant = machine.checkpoint("instant")
        with pytest.raises(StateError, match="cannot leave this host"):
            wait_for(travel.export(instant, tmp_path / "x"))
        portable = machine.checkpoint("portable", kind="portable")
    Path(portable.state.path).write_bytes(b"x")
    with pytest.raises(StateError, match=r"is not whole\n.*state\.zst"):
        wait_for(travel.export(portable, tmp_path / "x"))
    assert not list(tmp_path.iterdir())


def restored(checkpoint: Checkpoint) -> Machine:
    [restored] = wait_for(fork_many(checkpoint, 1, names=[checkpoint.machine], same=True))
    return Machine.around(AsyncMachine.around(Connected.of_fork(restored)))


@pytest.mark.parametrize("kind", ["instant", "portable"])
def test_a_checkpoint_others_rest_on_is_kept_or_taken_along(kind: str) -> None:
    """The disks of a restored machine, and of checkpoints taken of it, lie in part in the checkpoint it came from."""
    with Machine(name="line", forkable=True, disks=[{"size": "64M"}]) as machine:
        machine.run("echo kept >/dev/vda; sync")
        first = machine.checkpoint("first", kind=kind)  # type: ignore[arg-type]
    with restored(first) as machine:
        second = machine.checkpoint("second", kind=kind)  # type: ignore[arg-type]
        with pytest.raises(StateError, match=r"what others rest on: line, @second"):
            checkpoints.remove("first")
    with pytest.raises(StateError, match="what others rest on: @second"):
        checkpoints.remove("first")
    with restored(second) as machine:
        assert machine.run("head -n 1 /dev/vda").text == "kept"
    assert checkpoints.remove("first", force=True) == ["@second"]
    assert not [path for path in checkpoints_dir().iterdir() if not path.name.startswith(".")]


def test_a_checkpoint_of_a_fork_outlives_what_the_fork_came_from() -> None:
    """The checkpoint behind `fork` is gone with the last fork; its frozen disks are not, while somebody rests on them."""
    with Machine(forkable=True, disks=[{"size": "64M"}]) as machine:
        machine.run("echo kept >/dev/vda; sync")
        with machine.fork() as fork:
            taken = fork.checkpoint("later")
    with restored(taken) as machine:
        assert machine.run("head -n 1 /dev/vda").text == "kept"
    checkpoints.remove("later")
    assert [one.name for one in checkpoints.every() if one.machine in (machine.name, fork.name)] == []
