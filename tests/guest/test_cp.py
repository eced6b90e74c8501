"""The command ``tinamou cp`` and its refusals."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import tarfile

import pytest
from trees import same, sparse
from typed import TINAMOU, begin, call, eventually

from tinamou.cli import cp
from tinamou.control import connect_qmp
from tinamou.control.answers import records
from tinamou.errors import SpecError, StateError


@pytest.mark.parametrize("paths", [("a", "b"), ("vm:/a", "vm:/b"), ("vm:/a", "other:/b"), ("a", "vm:/b", "vm:/c")])
def test_one_side_is_a_guest_and_one_is_not(paths):
    with pytest.raises(SpecError, match="cannot be copied"):
        cp.command(*paths)


def test_incomplete_and_unknown(capsys):
    assert cp.command("a") == 2
    assert "copy what to where" in capsys.readouterr().err
    with pytest.raises(StateError):
        cp.command("a", "no-such-machine:/x")


@pytest.mark.parametrize(
    ("paths", "said"),
    [(("-", "a", "vm:/b"), "copied alone"), (("vm:/a", "vm:/b", "-"), "copied alone"), (("-", "a"), "one side must be")],
)
def test_an_archive_is_copied_alone(paths, said):
    with pytest.raises(SpecError) as caught:
        cp.command(*paths)
    assert said in str(caught.value)


@pytest.mark.parametrize("limit", ["much", "-1", "1e9"])
def test_a_limit_is_a_size(limit):
    with pytest.raises(SpecError) as caught:
        cp.command("vm:/a", "b", limit=limit)
    assert f"--limit = {limit!r}" in str(caught.value)


def unsaid(text):
    """What it said beside that it waits, which it does for an agent that is started when it is wanted on a busy host."""
    return [line for line in text.splitlines() if "waiting for the guest" not in line]


@pytest.mark.vm
def test_copies_with_a_machine(state, tmp_path):
    started = call("run", "-d", "--name", "box")
    assert started.returncode == 0, started.stderr
    try:
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "data").write_bytes(os.urandom(100_000))
        (folder / "run.sh").write_text("#!/bin/sh\n")
        (folder / "run.sh").chmod(0o755)
        for words in (
            ("cp", str(folder), "box:/root/copied"),
            ("cp", "box:/root/copied", str(tmp_path / "back")),
            ("cp", str(folder / "data"), str(folder / "run.sh"), "box:/tmp"),
            ("cp", "box:/tmp/data", "box:/tmp/run.sh", str(tmp_path)),
        ):
            done = call(*words)
            assert (done.returncode, done.stdout, unsaid(done.stderr)) == (0, "", [])
        for name in ("data", "run.sh"):
            assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()
            assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
        assert (tmp_path / "back" / "run.sh").stat().st_mode & 0o777 == 0o755
        missing = call("cp", "box:/no/such", str(tmp_path))
        assert missing.returncode == 116
        assert "/no/such" in missing.stderr
    finally:
        assert call("rm", "-f", "box").returncode == 0


@pytest.mark.vm
def test_an_archive_goes_through_a_pipe(state, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "data").write_bytes(os.urandom(4_000_000))
    packed = subprocess.run(["tar", "-c", "folder"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert call("run", "-d", "--name", "box").returncode == 0
    try:
        into = subprocess.run([*TINAMOU, "cp", "-", "box:/tmp"], input=packed, capture_output=True, check=False)
        assert (into.returncode, into.stdout, unsaid(into.stderr.decode())) == (0, b"", [])
        back = subprocess.run([*TINAMOU, "cp", "box:/tmp/folder", "-"], capture_output=True, check=False)
        assert (back.returncode, unsaid(back.stderr.decode())) == (0, [])
        with tarfile.open(fileobj=io.BytesIO(back.stdout)) as archive:
            assert archive.extractfile("folder/data").read() == (tmp_path / "folder" / "data").read_bytes()
        for words, said in (
            (("cp", "-", "box:/tmp/folder/data"), "is no folder"),
            (("cp", "box:/dev/null", "-"), "a device"),
            (("cp", "box:/tmp/folder", str(tmp_path / "new"), "--limit", "1M"), "more than it may"),
        ):
            done = subprocess.run([*TINAMOU, *words], input=packed, capture_output=True, check=False)
            assert done.returncode == 116
            assert said in done.stderr.decode()
        assert not (tmp_path / "new").exists()
        cut = subprocess.run([*TINAMOU, "cp", "-", "box:/tmp"], input=packed[:-20_000], capture_output=True, check=False)
        assert cut.returncode == 110
        assert b"cut short" in cut.stderr
        with subprocess.Popen([*TINAMOU, "cp", "box:/tmp/folder", "-"], stdout=subprocess.PIPE) as stopped:
            stopped.stdout.read(1000)
            stopped.stdout.close()
            assert stopped.wait(60) == 141
    finally:
        assert call("rm", "-f", "box").returncode == 0


@pytest.mark.vm
def test_out_of_a_guest_whose_disk_is_full(state, tmp_path):
    """What is on it can still be had; what does not fit says why, and leaves nothing."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "data").write_bytes(os.urandom(3_000_000))
    (tmp_path / "more").write_bytes(os.urandom(3_000_000))
    assert call("run", "-d", "--name", "box").returncode == 0
    try:
        assert call("cp", str(tmp_path / "folder"), "box:/root/folder").returncode == 0
        (tmp_path / "back").mkdir()
        call("exec", "box", "--", "sh", "-c", "dd if=/dev/zero of=/fill bs=4096; dd if=/dev/zero of=/tmp/fill bs=4096")
        assert call("cp", "box:/root/folder", "box:/root/folder/data", str(tmp_path / "back")).returncode == 0
        for back in ("back/folder/data", "back/data"):
            assert (tmp_path / back).read_bytes() == (tmp_path / "folder" / "data").read_bytes()
        for what in ("more", "folder"):
            done = call("cp", str(tmp_path / what), "box:/root/new")
            assert done.returncode == 116
            assert "No space left on device" in done.stderr
        left = call("exec", "box", "--", "find", "/", "-xdev", "-name", ".tinamou-*")
        assert (left.returncode, left.stdout) == (0, "")
    finally:
        assert call("rm", "-f", "box").returncode == 0


@pytest.mark.vm
def test_a_copy_that_was_killed_is_in_nobodys_way(state, tmp_path):
    """The port it leaves in QEMU is taken out by the next copy, and before the machine is saved."""
    (tmp_path / "big").write_bytes(bytes(200 << 20))
    assert call("run", "-d", "--name", "box", "--memory", "512M").returncode == 0

    def killed():
        running = begin("cp", str(tmp_path / "big"), "box:/root/")
        eventually(lambda: "tinamou-copy" in asyncio.run(plugged()), "the port of the copy")
        running.send_signal(signal.SIGSTOP)  # it is not done before it is killed
        busy = call("suspend", "box")
        assert busy.returncode == 118
        assert f"process {running.pid} copies files" in busy.stderr
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert "tinamou-copy" in asyncio.run(plugged())

    async def plugged():
        async with await connect_qmp(str(state / "machines" / "box")) as session:
            devices = records(await session.execute("qom-list", path="/machine/peripheral"))
        return [device["name"] for device in devices]

    try:
        killed()
        (tmp_path / "next").write_bytes(os.urandom(1 << 20))
        assert call("cp", str(tmp_path / "next"), "box:/root/next").returncode == 0
        assert "tinamou-copy" not in asyncio.run(plugged())
        eventually(lambda: call("exec", "box", "--", "ls", "-A", "/root").stdout == "next\n", "the guest tidies up")
        killed()
        assert call("suspend", "box").returncode == 0
        assert call("resume", "box").returncode == 0
        assert call("cp", "box:/root/next", str(tmp_path / "back")).returncode == 0
        assert (tmp_path / "back").read_bytes() == (tmp_path / "next").read_bytes()
    finally:
        assert call("rm", "-f", "box").returncode == 0


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["aarch64", "riscv64"])
def test_holes_of_other_architectures(state, tmp_path, arch):
    """The program that finds holes runs there."""
    sparse(tmp_path / "image")
    assert call("run", "-d", "--name", "box", "--arch", arch).returncode == 0
    try:
        assert call("cp", str(tmp_path / "image"), "box:/root/").returncode == 0
        assert call("cp", "box:/root/image", str(tmp_path / "back")).returncode == 0
        same(tmp_path / "image", tmp_path / "back")
    finally:
        assert call("rm", "-f", "box").returncode == 0
