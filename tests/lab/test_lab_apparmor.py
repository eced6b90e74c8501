"""Inside the lab: a kernel with AppArmor. What a machine's profiles allow is what it needs, and they go with it."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tinamou.images import offline, qemu_img
from tinamou.system import reader_profile, shut_in
from tinamou.system.exec import CommandError

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

HELPERS = ("swtpm", "passt", "virtiofsd")


def rooted(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


def tinamou(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return rooted(sys.executable, "-m", "tinamou", *words, check=check)


@pytest.fixture(autouse=True, scope="module")
def modules():
    """The kernel finds none by itself: its own root has none."""
    if os.environ.get("TINAMOU_LAB"):
        wanted = (
            "dummy",
            "bridge",
            "nf_tables",
            "nft_ct",
            "nft_nat",
            "nft_chain_nat",
            "nft_masq",
            "nft_fib_inet",
            "virtio_fs",
        )
        subprocess.run(["modprobe", "-a", *wanted], check=False)


def loaded() -> list[str]:
    text = Path("/sys/kernel/security/apparmor/profiles").read_text()
    return [line for line in text.splitlines() if line.startswith("tinamou-inner")]


def inside(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of root's under a profile."""
    return rooted("aa-exec", "-p", name, "--", *words, check=False)


@pytest.fixture
def machine(tmp_path: Path):
    extra = tmp_path / 'a disk "of" the user*s.raw'
    extra.write_bytes(b"x" * (1 << 20))
    subprocess.run(["ip", "link", "del", "way"], check=False)
    for line in ("link add way type dummy", "address add 10.1.1.1/24 dev way", "link set way up"):
        subprocess.run(["ip", *line.split()], check=True)
    subprocess.run(["ip", "route", "add", "default", "via", "10.1.1.2"], check=True)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/greeting").write_text("hello\n")
    share = f"{tmp_path}/shared:/mnt/shared"
    words = ("--tpm", "--net", "passt", "--share", share, "--set", "security.apparmor=require", "--timeout", "900")
    tinamou("run", "-d", "--name", "inner", *words)
    yield json.loads(tinamou("show", "inner", "--json").stdout), extra
    tinamou("rm", "-f", "inner", check=False)
    subprocess.run(["ip", "link", "del", "way"], check=True)


def test_a_machine_has_profiles_of_its_own_while_it_runs(machine):
    shown, extra = machine
    name = f"tinamou-inner-{shown['uid']}"
    assert Path(f"/proc/{shown['pid']}/attr/current").read_text().strip() == f"{name} (enforce)"
    assert {line.split()[0] for line in loaded()} == {name, *(f"{name}-{one}" for one in HELPERS)}
    under = {Path(f"/proc/{pid}/attr/current").read_text().split()[0] for pid in _named(*HELPERS)}
    assert under == {f"{name}-{one}" for one in HELPERS}
    assert tinamou("exec", "inner", "--", "cat", "/mnt/shared/greeting").stdout == "hello\n"
    tinamou("exec", "inner", "--", "sh", "-c", "echo hi > /mnt/shared/answer; rm /mnt/shared/greeting")
    assert [one.name for one in extra.parent.joinpath("shared").iterdir()] == ["answer"]
    assert inside(name, "/bin/cat", "/etc/shadow").returncode != 0, "a file of root's"
    assert rooted("/bin/cat", "/etc/shadow", check=False).returncode == 0, "without the profile it can be read"
    assert inside(name, "/bin/cat", "/proc/1/environ").returncode != 0, "another process"
    assert inside(name, "/bin/sh", "-c", "/bin/true").returncode != 0, "another program"
    assert inside(name, "/bin/cat", str(extra)).returncode != 0, "a file it was not handed"
    tinamou("disk", "add", "inner", f"path={extra},format=raw")
    assert inside(name, "/bin/cat", str(extra)).returncode == 0, "one that it was handed since"
    assert inside(f"{name}-swtpm", "/bin/cat", str(extra)).returncode != 0, "that is QEMU's, and not the TPM's"
    tinamou("rm", "-f", "inner")
    assert loaded() == []


def test_after_a_crash_they_are_removed(machine):
    shown, _ = machine
    assert loaded()
    os.kill(shown["pid"], signal.SIGKILL)
    tinamou("ls")
    tinamou("rm", "-f", "inner", check=False)
    assert loaded() == []


def test_without_them_where_they_are_not_wanted():
    done = tinamou("plan", "--why", "--set", "security.apparmor=off")
    assert "LoadProfiles" not in done.stdout
    assert "LoadProfiles tinamou-" in tinamou("plan", "--why").stdout


def _named(*names: str) -> list[int]:
    processes = [folder for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
    return [int(one.name) for one in processes if (one / "comm").read_text().strip().split(".")[0] in names]


def test_the_server_of_a_network_has_one_while_it_runs():
    tinamou("run", "-d", "--name", "inner", "--net", "type=bridge,network=lab", "--timeout", "900")
    try:
        [server] = _named("dnsmasq")
        profile = Path(f"/proc/{server}/attr/current").read_text().strip()
        assert profile.startswith("tinamou-net-")
        assert profile.endswith(" (enforce)")
        name = profile.split()[0]
        assert inside(name, "/bin/cat", "/etc/shadow").returncode != 0
        assert inside(name, "/bin/cat", "/etc/hosts").returncode == 0
        tinamou("exec", "inner", "--", "sh", "-c", "until ip addr | grep -q 'inet 10'; do sleep 0.2; done")
    finally:
        tinamou("rm", "-f", "inner", check=False)
    lines = Path("/sys/kernel/security/apparmor/profiles").read_text().splitlines()
    assert not [line for line in lines if "tinamou-" in line and "tinamou-reader-" not in line]


ATTEMPTS = (
    "import socket; socket.socket(socket.AF_INET)",
    "import socket; socket.socket(socket.AF_UNIX)",
    "import os; os.posix_spawn('/bin/true', ['true'], {})",
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk of another virtualizer's format, with a word in its second MiB."""
    raw, made = tmp_path / "disk.raw", tmp_path / "disk.vmdk"
    raw.write_bytes(b"\0" * (1 << 20) + b"a word" + b"\0" * (1 << 20))
    rooted("qemu-img", "convert", "-O", "vmdk", str(raw), str(made))
    made.chmod(0o600)
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
    assert shut_in.ask(["gpgv", "--version"], reads=[], seconds=20, cpu_seconds=5).startswith("gpgv")
    script = tmp_path / "qemu-img"
    script.write_text("#!/bin/sh\n/bin/true\nread -r held </proc/self/attr/current\necho $held\n")
    script.chmod(0o755)
    assert shut_in.ask([str(script)], reads=[], seconds=20, cpu_seconds=5) == f"{reader_profile.named()}-script (enforce)\n"


def test_what_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A program in the place of qemu-img, without the list of system calls, which would end it before."""
    monkeypatch.setattr(shut_in, "AUDIT", {})

    def does(code: str) -> None:
        shut_in.ask(["/usr/bin/python3", "-I", "-S", "-c", code], reads=[], seconds=60, cpu_seconds=30)

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
        assert rooted(*somebody, sys.executable, "-c", code, for_all).stdout == "vmdk None\n"
