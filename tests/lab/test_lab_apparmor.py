"""Inside the lab: a kernel with AppArmor. What a machine's profiles allow is what it needs, and they go with it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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
