"""The finder of leftovers finds each kind of thing, and nothing on a clean host."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typed import eventually

from tinamou.prepare.groups import group_name
from tinamou.system import cgroups, iproute


def test_clean(leftovers):
    assert leftovers.found() == []


def test_process_known_by_environment_argument_or_directory(leftovers, state):
    sleepers = [
        subprocess.Popen(["sleep", "60"], env={"TINAMOU_STATE": str(state)}),
        subprocess.Popen(["sh", "-c", "sleep 60; :", str(state)], env={}),
        subprocess.Popen(["sleep", "60"], cwd=state, env={}),
    ]
    try:
        started = {sleeper.pid for sleeper in sleepers}
        # a process has no command line for a moment after it was started
        eventually(lambda: started <= set(leftovers.processes()), "all three")
        assert len(leftovers.settle(0)) >= 3
    finally:
        leftovers.clear()
        for sleeper in sleepers:
            sleeper.wait()
    assert leftovers.settle() == []


def test_socket(leftovers, state):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(state / "qmp"))
        assert leftovers.found() == [f"socket {state}/qmp"]


def test_memory(leftovers):
    memory = os.memfd_create("checkpoint one")
    try:
        assert leftovers.found() == [f"new: memory {os.fstat(memory).st_ino}"]
    finally:
        os.close(memory)
    assert leftovers.found() == []


@pytest.mark.root
def test_interfaces_of_these_machines_and_of_no_others(leftovers, state):
    names = f"tm-{os.getpid()}-0", f"tm-{os.getpid()}-1"
    owners = state / "machines/one", Path("/tmp/tm-another/machines/one")
    try:
        for name, owner in zip(names, owners, strict=True):
            iproute.batch([f"link add name {name} type bridge", f"link set dev {name} {iproute.alias(owner)}"])
        assert leftovers.found() == [f"new: /sys/class/net/{names[0]}"]
    finally:
        for name in names:
            iproute.remove(name)
    assert leftovers.found() == []


@pytest.mark.root
def test_control_groups_of_these_machines_and_of_no_others(leftovers, state):
    mounted = cgroups.mounts().get("pids")
    if mounted is None:
        pytest.skip("no control groups are mounted")
    names = [group_name(f"{folder}/machines/one", "one") for folder in (state, "/tmp/tm-another")]
    folders = [mounted[1] / cgroups.PARENT / name for name in names]
    try:
        for folder in folders:
            folder.mkdir(parents=True)
        assert leftovers.found() == [f"new: {folders[0]}"]
        leftovers.clear()
        assert [folder.exists() for folder in folders] == [False, True]
    finally:
        for folder in folders:
            if folder.exists():
                folder.rmdir()
    assert leftovers.found() == []


def test_claim(leftovers, state, monkeypatch):
    monkeypatch.setenv("TINAMOU_RUN", str(state))
    (state / "tinamou.json").write_text(f'{{"cpus": {{"{state}/machines/a": "0-1"}}}}')
    assert leftovers.found() == ["a claim in the ledger of the host"]


def test_recorded_host(hosts):
    tree = hosts("64amd64-4s2n4ca2co")
    assert (tree / "sys/devices/system/cpu").is_dir()


def test_state_path_is_short(state):
    assert len(str(state)) < 30
    assert os.environ["TINAMOU_STATE"] == str(state)


_LEAVES = """
from pathlib import Path
import pytest

def test_one(cache: Path) -> None:
    (cache / "images/mine/x86_64/import-1").mkdir(parents=True)

def test_two(own_images: Path, cache: Path) -> None:
    (own_images / "images/other/x86_64/layer-1").mkdir(parents=True)
    (own_images / "images/tiny/x86_64/1-built").mkdir(parents=True)
    assert (cache / "images/tiny/x86_64/1-built").is_dir()
"""


@pytest.mark.parametrize("chosen", ["one", "two"])
def test_a_run_that_leaves_an_image_in_the_users_cache_fails(chosen: str, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(_LEAVES)
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "TINAMOU_CACHE": str(tmp_path / "users"),
        "PYTHONPATH": f"{here}:{os.environ.get('PYTHONPATH', '')}",
    }
    code = (
        "import sys, conftest, pytest; conftest._OTHERS_SECONDS = 0; sys.exit(pytest.main(sys.argv[1:], plugins=[conftest]))"
    )
    words = ["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(tmp_path), f"{tmp_path}/test_it.py"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "-k", chosen],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == (1 if chosen == "one" else 0)
    assert ("left in the user's cache: mine/x86_64/import-1; " in done.stderr) is (chosen == "one")
