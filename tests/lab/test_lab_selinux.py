"""On a host with SELinux enforcing: a machine and its helpers run under labels of their own, and do all they must.

Skipped where SELinux is not active: the lab's kernel starts with AppArmor. With SELinux, Debian's policy and tinamou's
it starts by `LAB_LSM=selinux script/lab test tests/lab/test_lab_selinux.py`.
"""

import json
import subprocess
import sys
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
