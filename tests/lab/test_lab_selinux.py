"""On a host with SELinux enforcing: a machine, its helpers and readers of images run under labels, and do all they must.

Skipped where SELinux is not active: the lab's kernel starts with AppArmor. With SELinux, Debian's policy and tinamou's
it starts by `LAB_LSM=selinux script/lab test tests/lab/test_lab_selinux.py`.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

UNCONFINED = "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023"


@pytest.fixture(autouse=True, scope="module")
def active():
    """This process can become an administrator's; itself it was the kernel's, and would be refused most things."""
    if not Path("/sys/fs/selinux/enforce").exists():
        pytest.skip("SELinux is not active: LAB_LSM=selinux script/lab test tests/lab/test_lab_selinux.py")
    assert subprocess.run(["runcon", UNCONFINED, sys.executable, "-c", "pass"], check=False).returncode == 0


def enforced(*words: str) -> subprocess.CompletedProcess[str]:
    """A command by whom an administrator is; what is not allowed is refused meanwhile."""
    script = 'echo 1 >/sys/fs/selinux/enforce; "$@"; status=$?; echo 0 >/sys/fs/selinux/enforce; exit $status'
    argv = ("runcon", UNCONFINED, "sh", "-c", script, "sh", *words)
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def tinamou(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = enforced(sys.executable, "-m", "tinamou", *words)
    assert not check or done.returncode == 0, done.stderr
    return done


def labels(name: str) -> list[str]:
    """Of every process that is called so."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "comm").read_text().strip() == name:
                found.append((place / "attr/current").read_text().strip("\0\n "))
        except OSError:
            continue
    return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its state lies where tinamou's own does: the policy lets helpers write there, and not in /tmp."""
    monkeypatch.setenv("TINAMOU_STATE", "/var/lib/tm-lab")
    extra = tmp_path / "extra.raw"
    extra.write_bytes(bytes(1 << 20))
    words = ("--tpm", "--disk", str(extra), "--set", "security.selinux=require", "--timeout", "900")
    tinamou("run", "-d", "--name", "inner", *words)
    yield json.loads(tinamou("show", "inner", "--json").stdout)
    tinamou("rm", "-f", "inner", check=False)


def test_it_and_its_helpers_run_under_its_label_which_keeps_it_from_files(machine):
    mine = Path(f"/proc/{machine['pid']}/attr/current").read_text().strip("\0\n ")
    user, role, kind, level = mine.split(":", 3)
    assert (user, role) == ("unconfined_u", "unconfined_r") and kind.startswith("tinamou_")
    assert set(labels("swtpm")) == {f"{user}:{role}:tinamou_swtpm_t:{level}"}
    shown = json.loads(tinamou("confine", "inner", "--json").stdout)
    assert mine in json.dumps(shown)
    secret = Path("/var/lib/world-readable")
    secret.write_text("x")
    secret.chmod(0o644)
    done = enforced("runcon", mine, "cat", str(secret))
    assert done.returncode != 0 and "Permission denied" in done.stderr, done.stderr
    assert enforced("cat", str(secret)).stdout == "x"


def test_the_guest_writes_its_disk_has_its_tpm_a_snapshot_and_starts_again(machine):
    written = "echo written | dd of=/dev/vda bs=512 conv=fsync 2>/dev/null && echo ok"
    assert tinamou("exec", "inner", "--", "sh", "-c", written).stdout == "ok\n"
    assert len(tinamou("exec", "inner", "--", "cat", "/sys/class/tpm/tpm0/pcr-sha256/0").stdout.strip()) == 64
    tinamou("pause", "inner")
    tinamou("resume", "inner")
    tinamou("stop", "inner")
    tinamou("start", "inner", "--timeout", "900")
    assert tinamou("exec", "inner", "--", "head", "-c", "7", "/dev/vda").stdout == "written"


READ = """
import asyncio, os, subprocess, sys, time
from pathlib import Path
from tinamou.images import offline, qemu_img
from tinamou.system import reader_label, shut_in

qemu_img._SECONDS = 600
image, target = sys.argv[1:]
calls, shut_in.AUDIT = shut_in.AUDIT, {}  # cat may do more than the list lets it
with subprocess.Popen(shut_in.shut_in(["cat"]), env=shut_in.ENVIRONMENT, stdin=subprocess.PIPE) as process:
    held = Path(f"/proc/{process.pid}/attr/current")
    while "unconfined_t" in (label := held.read_text().strip("\\0\\n")):
        assert process.poll() is None
        time.sleep(0.2)
    process.stdin.close()
    assert process.wait() == 0
shut_in.AUDIT = calls
print(label)
print(reader_label.missing() == "", qemu_img.info(image, "vmdk", [], "qemu-img")["virtual-size"] >> 20)
argv = ["qemu-img", "convert", "-p", "-f", "vmdk", "-O", "raw", image, target]
asyncio.run(offline.made(argv, "converting", [image], Path(target)))
print(Path(target).read_bytes()[1 << 20 :][:6].decode())
print(shut_in.ask(["gpgv", "--version"], reads=[], seconds=600, cpu_seconds=300).split()[0])
"""


@pytest.mark.parametrize("place", ["/root", "/var/lib", "/tmp"])
def test_what_reads_images_has_a_label_and_reads_what_lies_anywhere(place: str) -> None:
    raw, image, target = (Path(place) / f"tm-lab{ending}" for ending in (".raw", ".vmdk", ".out"))
    raw.write_bytes(b"\0" * (1 << 20) + b"a word" + b"\0" * (1 << 20))
    subprocess.run(["qemu-img", "convert", "-O", "vmdk", str(raw), str(image)], check=True)
    image.chmod(0o600)
    done = enforced(sys.executable, "-c", READ, str(image), str(target))
    for left in (raw, image, target):
        left.unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr
    label, *said = done.stdout.splitlines()
    assert label.startswith("unconfined_u:unconfined_r:tinamou_reader_t:s0:c")
    assert said == ["True 2", "a word", "gpgv"]


@pytest.fixture
def listening() -> Iterator[str]:
    path = Path("/var/lib/tm-socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield str(path)
    path.unlink()


def test_what_it_is_refused(listening: str) -> None:
    """It may have a Unix socket, as Debian's policy lets every process, and connect it to nobody."""
    label = "unconfined_u:unconfined_r:tinamou_reader_t:s0:c1,c600"
    for words in (
        ("/usr/bin/cat", "/etc/shadow"),
        ("/usr/bin/sh", "-c", "/usr/bin/true"),
        ("/usr/bin/dd", "if=/dev/null", "of=/var/lib/tm-made"),
        ("/usr/bin/python3", "-I", "-S", "-c", "import socket; socket.socket(socket.AF_INET)"),
        ("/usr/bin/python3", "-I", "-S", "-c", f"import socket; socket.socket(socket.AF_UNIX).connect('{listening}')"),
    ):
        assert enforced(*words).returncode == 0, words
        Path("/var/lib/tm-made").unlink(missing_ok=True)
        done = enforced("runcon", label, *words)
        assert done.returncode != 0 and "ermission denied" in done.stderr, (words, done.stderr)
    assert not Path("/var/lib/tm-made").exists()
