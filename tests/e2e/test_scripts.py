"""The scripts of a checkout: packages, setup, run, qemu10, qemu11, and the proof on a bare system."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "script"


def call(*command: object, **more) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **more)


def packages(*groups: str, release: str = "trixie") -> list[str]:
    done = call(SCRIPT / "packages", *groups, env={**os.environ, "RELEASE": release})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the scripts read, without .venv."""
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(SCRIPT, tmp_path / "script")
    return tmp_path


def command(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_groups_are_complete():
    groups = call(SCRIPT / "packages", "--groups").stdout.split()
    assert {"run", "build-guest", "arch-x86_64", "arch-aarch64", "arch-riscv64", "test", "bench"} <= set(groups)
    for release in ("bookworm", "trixie", "jammy", "noble", "a-later-one"):
        for group in groups:
            assert packages(group, release=release), f"{group} on {release}"


def test_names_differ_by_release():
    assert "qemu-system-misc" in packages("arch-riscv64", release="bookworm")
    assert "qemu-system-riscv" not in packages("arch-riscv64", release="bookworm")
    assert {"qemu-system-riscv", "qemu-efi-riscv64"} <= set(packages("arch-riscv64", release="trixie"))
    assert packages("arch-riscv64", release="a-later-one") == packages("arch-riscv64", release="trixie")
    assert "passt" not in packages("run", release="jammy")


def test_no_package_twice():
    listed = packages("run", "build-guest", "arch-x86_64", "arch-x86_64", "test")
    assert len(listed) == len(set(listed))


def test_unknown_group():
    done = call(SCRIPT / "packages", "run", "nonsense")
    assert done.returncode == 2
    assert "nonsense" in done.stderr


@pytest.mark.skipif(shutil.which("apt-cache") is None, reason="no apt on this system")
def test_every_package_exists_here():
    release = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.M)
    assert release
    groups = call(SCRIPT / "packages", "--groups").stdout.split()
    wanted = packages(*groups, release=release[1])
    known = re.findall(r"^Package: (\S+)", call("apt-cache", "show", "--no-all-versions", *wanted).stdout, re.M)
    if "python3" not in known or "qemu-utils" not in known:
        pytest.skip("apt has no package lists (apt-get update)")
    assert set(wanted) - set(known) == set()


def test_setup_is_done():
    done = call(SCRIPT / "setup", "--dev", env={**os.environ, "TINAMOU_PACKAGES": "skip"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_setup_names_the_line_for_root(checkout):
    tools = checkout / "tools"
    command(tools, "id", "echo 1000")
    command(tools, "sudo", "exit 1")
    command(tools, "dpkg-query", "echo python3 installed; exit 1")
    done = call(checkout / "script/setup", "run", env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"})
    assert done.returncode == 1
    (line,) = re.findall(r"^    apt-get update && apt-get install -y --no-install-recommends (.*)$", done.stderr, re.M)
    assert "qemu-utils" in line.split()
    assert "python3" not in line.split()
    assert not (checkout / ".venv").exists()


def test_setup_refuses_an_old_python(checkout):
    command(checkout / "tools", "python3", 'case $1 in --version) echo "Python 3.10.12";; *) exit 1;; esac')
    environment = {**os.environ, "TINAMOU_PACKAGES": "skip", "TINAMOU_PYTHON": str(checkout / "tools/python3")}
    done = call(checkout / "script/setup", env=environment)
    assert done.returncode == 1
    assert "3.11 or newer" in done.stderr
    assert "Python 3.10.12" in done.stderr
    assert "apt-get install -y python3.11 python3.11-venv" in done.stderr


@pytest.fixture
def stubbed(checkout):
    """A checkout whose setup and tinamou only say how they were called."""
    command(checkout / "script", "setup", 'echo "setup $*"')
    (checkout / ".venv").mkdir()
    command(checkout / ".venv/bin", "tinamou", 'for word; do printf "<%s>" "$word"; done')
    return checkout


@pytest.mark.parametrize(
    ("arguments", "prepared", "ran"),
    [
        ([], "run build-guest", "<run><--><uname><-a>"),
        (["--arch", "riscv64", "--", "ls", "a b"], "run build-guest arch-riscv64", "<run><--arch><riscv64><--><ls><a b>"),
        (["--arch=aarch64"], "run build-guest arch-aarch64", "<run><--arch=aarch64>"),
        (["--", "x", "--arch", "riscv64"], "run build-guest", "<run><--><x><--arch><riscv64>"),
        (["--arch", "vax"], "run build-guest", "<run><--arch><vax>"),
    ],
)
def test_run(stubbed, arguments, prepared, ran):
    done = call(stubbed / "script/run", *arguments)
    assert done.stdout == f"setup {prepared}\n{ran}"


def test_ci_runs_the_test_command_of_the_readme():
    lines = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ['cd "$(dirname "$0")/.." && exec script/test']
    assert "$ ./script/test\n" in (ROOT / "README.md").read_text()


@pytest.fixture(params=[pytest.param("10", marks=pytest.mark.qemu10), pytest.param("11", marks=pytest.mark.qemu11)])
def fetched(request):
    """A series that a script fetches, and the folder of its programs."""
    return request.param, Path(os.environ[f"TINAMOU_QEMU{request.param}"]).parent


@pytest.mark.parametrize("name", ["qemu-img", "qemu-system-x86_64", "qemu-system-aarch64", "qemu-system-riscv64"])
def test_a_qemu_that_was_fetched(fetched, name):
    number, folder = fetched
    said = re.search(r"version (\d+)\.", call(folder / name, "--version").stdout)
    assert said and int(said[1]) >= int(number)


def test_a_qemu_that_was_fetched_finds_its_firmware(fetched):
    machine = ["-M", "virt", "-display", "none", "-serial", "stdio", "-bios", "default"]
    binary = fetched[1] / "qemu-system-riscv64"
    process = subprocess.Popen([binary, *machine], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert any(b"OpenSBI" in line for line in process.stdout)
    finally:
        process.kill()
        process.wait()


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="no mmdebstrap (script/setup installs it)")
@pytest.mark.parametrize(("suite", "kernel"), [("bookworm", "6.1."), ("trixie", "6.12.")])
def test_bare_system(suite, kernel):
    """A fresh clone in a Debian root with python3 and git: script/run ends in what the guest answered."""
    done = call(SCRIPT / "bare", suite, "./script/run")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(rf"^Linux tiny\S* {re.escape(kernel)}", done.stdout, re.M)
    assert f"{suite}: ./script/run ended with status 0" in done.stdout
