"""Inside the lab, with control groups of version 2: a user's systemd bounds that user's QEMU, as a group bounds root's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

GROUPS = Path("/sys/fs/cgroup")
SYSTEMD = "/lib/systemd/systemd"
ROOT = Path(__file__).resolve().parents[2]
USER = 64_250
"""Whose machines script/attack attacks (tests/hostile/attacks/house.py)."""
BESIDE = GROUPS / f"user.slice/user-{USER}.slice/user@{USER}.service/beside"
"""The group of what the user does, as a login's: their systemd moves no process from outside what is theirs."""


@pytest.fixture(autouse=True)
def trial() -> None:
    """Whether KVM runs guests here makes no difference to what is shown."""


@pytest.fixture(autouse=True)
def way() -> Iterator[None]:
    """A default route, from which passt takes its addresses."""
    for line in ("link add way type dummy", "address add 10.1.1.1/24 dev way", "link set way up"):
        subprocess.run(["ip", *line.split()], check=True)
    subprocess.run(["ip", "route", "add", "default", "via", "10.1.1.2"], check=True)
    yield
    subprocess.run(["ip", "link", "del", "way"], check=True)


@pytest.fixture
def manager() -> Iterator[None]:
    """The systemd of a user, in a group that is theirs, as a login starts it (user@.service); no systemd runs here else."""
    place = BESIDE.parent
    booted, runtime, said = Path("/run/systemd/system"), Path(f"/run/user/{USER}"), Path("/tmp/systemd-of-a-user")
    booted.mkdir(parents=True, exist_ok=True)  # sd_booted(3)
    subprocess.run(["useradd", "--uid", str(USER), "--no-create-home", "tester"], check=True)
    BESIDE.mkdir(parents=True, exist_ok=True)
    for folder in (GROUPS, place.parent.parent, place.parent):
        (folder / "cgroup.subtree_control").write_text("+memory +pids")
    runtime.mkdir(parents=True, mode=0o700)
    control = [folder / f"cgroup.{name}" for folder in (place, BESIDE) for name in ("procs", "threads", "subtree_control")]
    for path in (place, BESIDE, *control, runtime):
        os.chown(path, USER, USER)
    begun = f'echo $$ >"{place}/cgroup.procs"; exec setpriv --reuid={USER} --regid={USER} --clear-groups {SYSTEMD} --user'
    with said.open("w") as out:
        process = subprocess.Popen(
            ["sh", "-c", begun], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
            env={"HOME": "/tmp", "PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(runtime), "SYSTEMD_LOG_TARGET": "console"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while not (runtime / "bus").exists():
            assert process.poll() is None and time.monotonic() < deadline, said.read_text()
            time.sleep(0.2)
        yield
    finally:
        (place / "cgroup.kill").write_text("1")
        process.wait(60)
        subprocess.run(["userdel", "tester"], check=True)
        for path in (booted, runtime):
            shutil.rmtree(path, ignore_errors=True)


def attacked(group: Path) -> tuple[int, set[tuple[str, str, str]]]:
    """What becomes of taking more memory than its share, by the QEMU of a user, in a group; the status of it."""
    words = [sys.executable, str(ROOT / "script/attack"), "--as", "user", "--only", "much-memory", "--json"]
    begun = ["sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', str(group), *words]
    done = subprocess.run(begun, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    by = json.loads(done.stdout)["outcomes"]
    return done.returncode, {(who, one["state"], one["by"]) for who, found in by.items() if " qemu" in who for one in found}


def test_with_it_memory_is_bounded(manager: None) -> None:
    status, found = attacked(BESIDE)
    assert found == {("user's qemu", "refused", "SIGKILL"), ("user's qemu (fork)", "refused", "SIGKILL")}
    assert status == 0


def test_without_it_nothing_bounds_memory() -> None:
    status, found = attacked(GROUPS)
    assert status == 1 and "succeeded" in {state for _, state, _ in found}  # the kernel may end one of them when all is used
