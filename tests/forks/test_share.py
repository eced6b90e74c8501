"""Folders of the host in guests: reading, writing, read-only, over checkpoints, forks and restarts, with real guests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinamou import Machine, Pool
from tinamou.errors import GuestError, PrepareError, SpecError
from tinamou.machine.checkpoints import every
from tinamou.parts.share import ShareSpec
from tinamou.snapshots.resting import discard


@pytest.fixture(autouse=True)
def kept_no_checkpoint() -> Iterator[None]:
    """Checkpoints stay when machines go; a test's own must not."""
    yield
    for one in every():
        discard(Path(one.directory))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one file."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/greeting").write_text("hello\n")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("/data", ("/data", "/mnt/data", False)),
        ("/a/b:/srv/b", ("/a/b", "/srv/b", False)),
        ("/a/b:ro", ("/a/b", "/mnt/b", True)),
        ("/a/b:/srv:ro", ("/a/b", "/srv", True)),
    ],
)
def test_short_forms(written: str, read: tuple[str, str, bool]) -> None:
    share = ShareSpec(written)
    assert ((share.host, share.guest, share.fixed), share.problems()) == (read, [])


@pytest.mark.parametrize("written", ["data", "/a:b", "/a:/b:/c", "/a:/b:rw", "/", ""])
def test_what_is_no_share_is_refused(written: str) -> None:
    with pytest.raises(SpecError, match=r"path|to"):
        Machine(share=[written])


@pytest.mark.vm
def test_a_folder_that_is_missing_is_refused_before_anything_starts() -> None:
    with pytest.raises(PrepareError, match="not a folder"):
        Machine(share=["/nowhere/at/all"]).start()


@pytest.mark.vm
@pytest.mark.root
@pytest.mark.virtiofsd
def test_a_shared_folder_is_read_and_written(folder: Path) -> None:
    with Machine(share=[f"{folder}:/data", f"{folder}:/again:ro"]) as vm:
        assert vm.run("cat /data/greeting /again/greeting").text == "hello\nhello"
        vm.run("echo back >/data/answer")
        assert (folder / "answer").read_text() == "back\n"
        assert vm.run("stat -c %u /data/greeting").text == str((folder / "greeting").stat().st_uid)
        refused = vm.run("echo no >/again/answer", check=False)
        assert refused.status
        assert "Read-only" in refused.stderr.decode()
        vm.run("mount -o remount,rw /again; rm /again/answer", check=False)
        assert (folder / "answer").exists()


@pytest.mark.vm
@pytest.mark.root
@pytest.mark.virtiofsd
def test_shares_do_not_prevent_checkpoints_and_forks_have_them(folder: Path) -> None:
    with Machine(forkable=True, share=[f"{folder}:/data"]) as source:
        kept = source.checkpoint("shared")
        assert source.run("cat /data/greeting").text == "hello"
        with source.fork(2) as forks:
            for one in forks:
                one.run('hostname >"/data/$(hostname)"')
            assert {(folder / one.name).read_text().strip() for one in forks} == {one.name for one in forks}
        assert source.run("ls /data | wc -l").text == "3"
        busy = source.run("cd /data && (sleep 600 >/dev/null 2>&1 &) && echo on")
        assert busy.text == "on"
        with pytest.raises(GuestError, match="cannot be taken out"):
            source.checkpoint("busy")
        source.reset()
        assert source.run("cat /data/greeting").text == "hello"
    with Pool(kept, 1) as pool, pool.take() as taken:
        assert taken.run("cat /data/greeting").text == "hello"


@pytest.mark.vm
@pytest.mark.root
@pytest.mark.virtiofsd
def test_a_command_in_a_warm_machine_with_a_share(folder: Path) -> None:
    argv = [sys.executable, "-m", "tinamou", "run", "--warm", "--share", f"{folder}:/work:ro", "--", "cat", "/work/greeting"]
    for _ in range(2):
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False)
        assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
