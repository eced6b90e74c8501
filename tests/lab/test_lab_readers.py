"""Inside the lab: a kernel with AppArmor. What reads files nobody vouches for is under a profile, and reads them."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tinamou.images import offline, qemu_img
from tinamou.system import reader_profile, shut_in
from tinamou.system.exec import CommandError

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

ATTEMPTS = (
    "import socket; socket.socket(socket.AF_INET)",
    "import socket; socket.socket(socket.AF_UNIX)",
    "import os; os.posix_spawn('/bin/true', ['true'], {})",
)


@pytest.fixture(autouse=True)
def trial() -> None:
    """No machine is started here: nothing waits for a trial of KVM."""


def rooted(*words: str) -> str:
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout


def inside(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of root's under a profile."""
    return subprocess.run(["aa-exec", "-p", name, "--", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk of another virtualizer's format, with a word in its second MiB."""
    raw, made = tmp_path / "disk.raw", tmp_path / "disk.vmdk"
    raw.write_bytes(b"\0" * (1 << 20) + b"a word" + b"\0" * (1 << 20))
    rooted("qemu-img", "convert", "-O", "vmdk", str(raw), str(made))
    made.chmod(0o600)
    monkeypatch.setattr(qemu_img, "_SECONDS", 600)  # emulated, on a busy host
    return made


def test_what_reads_images_has_a_profile(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """qemu-img waits for the other end of a pipe it is to read: under its profile, in its own root, by then."""
    pipe, target = tmp_path / "pipe", tmp_path / "target.qcow2"
    os.mkfifo(pipe)
    with subprocess.Popen(
        shut_in.shut_in(["qemu-img", "info", "-f", "raw", str(pipe)], reads=[pipe]), env=shut_in.ENVIRONMENT
    ) as process:
        while (held := Path(f"/proc/{process.pid}/attr/current").read_text().strip("\0\n")) == "unconfined":
            assert process.poll() is None
        assert held == f"{reader_profile.named()} (enforce)"
        assert Path(f"/proc/{process.pid}/exe").readlink().name == "qemu-img"
        other_end = os.open(pipe, os.O_RDWR)
        process.wait()
        os.close(other_end)
    monkeypatch.setattr(reader_profile, "run", None)  # it is there: nothing is loaded again
    assert qemu_img.info(str(image), "vmdk", [], "qemu-img")["virtual-size"] >= 2 << 20
    assert qemu_img.extract(str(image), "vmdk", [], (1 << 20, 512), "qemu-img").startswith(b"a word\0")
    argv = ["qemu-img", "convert", "-p", "-f", "vmdk", "-O", "raw", str(image), str(target)]
    asyncio.run(offline.made(argv, "converting", [str(image)], target))
    assert target.read_bytes()[1 << 20 :].startswith(b"a word")
    assert shut_in.ask(["gpgv", "--version"], reads=[], seconds=600, cpu_seconds=300).startswith("gpgv")
    script = tmp_path / "qemu-img"
    script.write_text("#!/bin/sh\n/bin/true\nread -r held </proc/self/attr/current\necho $held\n")
    script.chmod(0o755)
    said = shut_in.ask([str(script)], reads=[], seconds=600, cpu_seconds=300)
    assert said == f"{reader_profile.named()}-script (enforce)\n"


def test_what_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A program in the place of qemu-img, without the list of system calls, which would end it before."""
    monkeypatch.setattr(shut_in, "AUDIT", {})

    def does(code: str) -> None:
        shut_in.ask(["/usr/bin/python3", "-I", "-S", "-c", code], reads=[], seconds=600, cpu_seconds=300)

    for code in ATTEMPTS:
        with pytest.raises(CommandError, match="PermissionError: \\[Errno 13\\]"):
            does(code)
    with monkeypatch.context() as without:
        without.setattr(reader_profile, "entered", lambda script: "")
        for code in ATTEMPTS:
            does(code)
    name, own = reader_profile.named(), tmp_path / "own"
    assert inside(name, "/bin/cat", "/proc/self/attr/current").stdout == f"{name} (enforce)\n"
    assert inside(name, "/bin/dd", "if=/dev/null", f"of={own}").returncode == 0 and own.exists()
    for path in ("/etc/made", "/usr/lib/made"):
        assert inside(name, "/bin/dd", "if=/dev/null", f"of={path}").returncode != 0, path
    assert inside(name, "/bin/sh", "-c", "/bin/true").returncode != 0
    assert inside(f"{name}-script", "/bin/sh", "-c", "/bin/true").returncode == 0
    assert inside(f"{name}-script", "/bin/sh", "-c", "/bin/mount -t tmpfs none /mnt").returncode != 0
    sleeping = subprocess.Popen(["/bin/sleep", "600"])
    assert inside(name, "/bin/kill", str(sleeping.pid)).returncode != 0
    assert sleeping.poll() is None
    sleeping.kill()
    sleeping.wait()


def test_where_it_may_not_be_entered_images_are_read_all_the_same(image: Path, tmp_path: Path):
    code = "import sys; from tinamou.images import qemu_img; from tinamou.system import reader_profile\n"
    code += "qemu_img._SECONDS = 600\n"
    code += "print(qemu_img.info(sys.argv[1], 'vmdk', [], 'qemu-img')['format'], reader_profile.missing())"
    rules = "file, capability, network, unix, signal, ptrace, mount, umount, remount, pivot_root,"
    outer = tmp_path / "outer"
    outer.write_text(f"abi <abi/3.0>,\nprofile tinamou-reader-lab flags=(attach_disconnected) {{ {rules} }}\n")
    rooted("apparmor_parser", "--replace", "--skip-cache", str(outer))
    try:
        done = inside("tinamou-reader-lab", sys.executable, "-c", code, str(image))
    finally:
        rooted("apparmor_parser", "--remove", str(outer))
    assert done.stdout == "vmdk tinamou itself runs under the profile tinamou-reader-lab (enforce)\n", done.stderr
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for_all = shutil.copyfile(image, f"{folder}/disk.vmdk")
        somebody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        assert rooted(*somebody, sys.executable, "-c", code, for_all) == "vmdk None\n"
