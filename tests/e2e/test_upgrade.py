"""Another QEMU takes a running machine over: everything goes on, and where it cannot, the old one does."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cut_short import CUT_SHORT
from typed import call, eventually, tinamou

import tinamou as tinamou_package
from tinamou import Machine
from tinamou.errors import LaunchError, TinamouError
from tinamou.machine import sockets_aside
from tinamou.machine.reconcile import reconcile, strays
from tinamou.machine.upgrading import Upgraded
from tinamou.operations.changelog import security_fixes
from tinamou.probe.qemu import find_binary, probe_qemu
from tinamou.state import machines
from tinamou.state.record import change
from tinamou.system.holding import why_not
from tinamou.system.mappings import mapping_of

pytestmark = pytest.mark.vm

TICKS = "(while :; do echo $((++i)) $(cut -d' ' -f1 /proc/uptime) >> /tmp/ticks; usleep 20000; done) >/dev/null 2>&1 &"
WRITES = "(while :; do echo $((++i)) > /dev/vda; sync; echo $i > /tmp/new; mv /tmp/new /tmp/synced; done) >/dev/null 2>&1 &"
GOES_ON = "a=$(cat /tmp/synced); until [ $(cat /tmp/synced) -gt $a ]; do usleep 20000; done; echo $a"
"""Waits until one more was written; the number before."""
HELD = "dd if=/dev/urandom of=/tmp/f bs=1M count=20 2>&1; sha256sum /tmp/f > /tmp/sum"


def binary(which: str) -> str:
    """The QEMU of that series, as TINAMOU_QEMU names it."""
    return os.environ[f"TINAMOU_QEMU{which}"] if which else find_binary("x86_64")


PAIRS = [
    pytest.param("", "", id="installed-installed"),
    pytest.param("", "11", id="installed-11", marks=pytest.mark.qemu11),
    pytest.param("10", "11", id="10-11", marks=[pytest.mark.qemu10, pytest.mark.qemu11]),
    pytest.param("11", "11", id="11-11", marks=pytest.mark.qemu11),
]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_memory_disks_and_commands_go_on(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if old:
        monkeypatch.setenv("TINAMOU_QEMU", binary(old))
    with Machine(forkable=True, disks=[{"size": "8M"}]) as machine:
        machine.run(f"{HELD}; {TICKS} {WRITES} until [ -e /tmp/synced ]; do usleep 10000; done")
        for number in range(3):
            if number == 2 and not why_not():
                machine.fork().kill()  # from now on its memory is frozen, and what it changed since goes over by itself
                assert mapping_of(machine.record.pid, 512 << 20).private
            before, synced = machine.record.process, int(machine.run("cat /tmp/synced").text)
            done = taken_over(machine, new)
            assert done.why == ""
            assert done.after.startswith(".".join(map(str, probe_qemu(binary(new).replace("{arch}", "x86_64")).version)))
            assert machine.record.process != before
            assert strays(machine.record.path) == [machine.record.process]
            assert machine.run("sha256sum -c /tmp/sum").text == "/tmp/f: OK"
            assert int(machine.run("dd if=/dev/vda bs=512 count=1 2>/dev/null | head -1").text) >= synced
            assert int(machine.run(GOES_ON).text) >= synced
            earliest, told, latest = time.time(), int(machine.run("date +%s").text), time.time()
            assert earliest - 2 < told < latest + 2
        ticks = [int(line.split()[0]) for line in machine.run("cat /tmp/ticks").text.splitlines()]
        assert ticks == list(range(1, len(ticks) + 1))
        machine.snapshots.create("after")
        assert tinamou("exec", machine.name, "--", "hostname").strip() == machine.name
        assert sockets_aside.left(machine.record.path) == []


def taken_over(machine: Machine, new: str) -> Upgraded:
    """What came of it; of packages that load none of the other's states (10.0.13, 11.1.3), that the guest is still there."""
    before = machine.record.process
    try:
        return machine.upgrade(binary(new))
    except LaunchError as error:
        assert "load of migration failed" in str(error.evidence), error
        assert machine.record.process == before and machine.run("sha256sum -c /tmp/sum").text == "/tmp/f: OK"
        pytest.skip(f"{binary(new)} does not take over from this QEMU: {str(error.evidence)[:300]}")


def test_a_port_of_the_host_leads_into_the_guest_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Machine(forkable=True, net=[{"type": "user", "forward": [f"{port}:80"]}]) as machine:
        machine.run("(while :; do echo there | nc -l -p 80; done) >/dev/null 2>&1 &")
        for _ in range(2):
            eventually(lambda: said_at(port) == b"there\n", "what the guest says at its port")
            machine.upgrade()


def said_at(port: int) -> bytes:
    """What comes from a port first; nothing where nobody listens in the guest yet."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connected:
            return connected.recv(100)
    except ConnectionError:
        return b""


@pytest.mark.parametrize("kind", ["vnc", "spice"])
def test_its_screen_is_served_again(kind: str, new_qemu: str) -> None:
    if not probe_qemu(find_binary("x86_64")).has({"vnc": "option:vnc", "spice": "type:chardev-spicevmc"}[kind]):
        pytest.skip(f"this QEMU has no {kind}")
    with Machine(forkable=True, net=[], display={"type": kind}) as machine:
        machine.run(HELD)
        for number in range(2):
            assert taken_over(machine, new_qemu).why == ""
            assert machine.qmp(f"query-{kind}")["enabled"] is True
            with socket.socket(socket.AF_UNIX) as viewer:
                viewer.settimeout(60)
                viewer.connect(str(machine.record.file(f"run/{kind}.sock")))
                if kind == "vnc":
                    assert viewer.recv(12).startswith(b"RFB "), number
        assert sockets_aside.left(machine.record.path) == []


@pytest.fixture(params=["", pytest.param("11", marks=pytest.mark.qemu11)], ids=["installed", "11"])
def new_qemu(request: pytest.FixtureRequest) -> str:
    """The QEMU that takes over."""
    return str(request.param)


@pytest.fixture
def wrapped(open_folder: Path) -> Iterator[Path]:
    """A QEMU like the installed one, but for what a test puts in front of its last line."""
    path = open_folder / "qemu-system-x86_64"
    path.write_text("")
    path.chmod(0o755)
    yield path


REFUSES = {
    "it does not start": 'case "$*" in *incoming*) echo no such luck >&2; exit 3;; esac',
    "it does not take the state": """
case "$*" in *incoming*)
    for word; do
        shift
        case $word in
            *virtio-rng-pci*) set -- "$@" '{"driver":"pci-testdev","id":"other"}' ;;
            *) set -- "$@" "$word" ;;
        esac
    done ;;
esac""",
}


@pytest.mark.parametrize("how", REFUSES)
def test_where_the_new_one_fails_the_old_one_goes_on(how: str, wrapped: Path) -> None:
    wrapped.write_text(f'#!/bin/sh\n{REFUSES[how]}\nexec {find_binary("x86_64")} "$@"\n')
    with Machine(forkable=True, net=[], disks=[{"size": "8M"}]) as machine:
        machine.run(f"{HELD}; {TICKS} {WRITES} until [ -e /tmp/synced ]; do usleep 10000; done")
        before = machine.record.process
        with pytest.raises(TinamouError):
            machine.upgrade(str(wrapped))
        assert machine.record.process == before
        assert strays(machine.record.path) == [before]
        assert machine.run("sha256sum -c /tmp/sum").text == "/tmp/f: OK"
        assert int(machine.run(GOES_ON).text) > 0
        assert tinamou("exec", machine.name, "--", "hostname").strip() == machine.name
        assert sockets_aside.left(machine.record.path) == []
        assert machine.upgrade().why == ""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_command_that_is_killed_leaves_one_machine_that_runs(moment: str, state: Path) -> None:
    tinamou("run", "-d", "--name", "kept", "--net", "none", "--set", "memory.forkable=true")
    try:
        before = machines.find("kept").process
        tinamou("exec", "kept", "--", "sh", "-c", HELD)
        subprocess.run([sys.executable, "-c", CUT_SHORT, "kept", moment], check=False, timeout=300)
        reconcile()
        record = machines.find("kept")
        assert (record.process == before) == (moment == "before")
        assert strays(record.path) == [record.process]
        assert tinamou("exec", "kept", "--", "sha256sum", "-c", "/tmp/sum") == "/tmp/f: OK\n"
        assert sockets_aside.left(record.path) == []
        assert json.loads(tinamou("upgrade", "kept", "--json"))[0]["why"] == ""
    finally:
        call("rm", "-f", "kept")


def test_a_machine_with_memory_of_its_own_is_suspended_and_resumed() -> None:
    tinamou("run", "-d", "--name", "plain", "--net", "none")
    try:
        tinamou("exec", "plain", "--", "sh", "-c", HELD)
        done = call("upgrade", "plain")
        assert done.returncode == 0, done.stderr
        assert "plain is suspended and resumed, as its memory is QEMU's own" in done.stderr
        assert tinamou("exec", "plain", "--", "sha256sum", "-c", "/tmp/sum") == "/tmp/f: OK\n"
    finally:
        call("rm", "-f", "plain")


def test_a_machine_that_was_paused_stays_so() -> None:
    with Machine(forkable=True, net=[]) as machine:
        machine.pause()
        with pytest.raises(TinamouError, match="it is paused"):
            machine.upgrade()
        assert machine.qmp("query-status")["status"] == "paused"
        machine.resume()
        assert machine.upgrade().why == ""


OLDER = "Debian 1:7.2+dfsg-7+deb12u1"


@pytest.fixture
def outdated() -> Iterator[str]:
    """A machine that says that it runs on an older package than the one that is installed."""
    tinamou("run", "-d", "--no-wait", "--name", "old", "--net", "none", "--set", "memory.size=192M")
    yield change(machines.find("old"), package=OLDER).name
    call("rm", "-f", "old")


def test_who_runs_on_another_qemu_is_listed() -> None:
    assert call("upgrade").returncode == call("upgrade", "one", "--all").returncode == 110
    assert call("upgrade", "--all", "--quiet").returncode == 110
    with Machine(forkable=True, net=[]):
        assert json.loads(tinamou("upgrade", "--list", "--json")) == []
        assert call("upgrade", "--list", "--quiet").stderr == ""


def test_who_would_run_on_another_qemu_is_listed(another_qemu: str) -> None:
    with Machine(forkable=True, net=[]) as machine:
        [row] = json.loads(tinamou("upgrade", "--list", "--to", another_qemu, "--json"))
        assert (row["name"], row["why"]) == (machine.name, "it is of another package")
        assert (row["security"], row["cves"]) == (None, [])


def test_what_was_fixed_since_is_said(outdated: str) -> None:
    here = probe_qemu(find_binary("x86_64"))
    known = security_fixes(OLDER, here.package)
    [row] = json.loads(tinamou("upgrade", "--list", "--json"))
    assert (row["name"], row["runs"], row["security"]) == (outdated, OLDER, None if known is None else list(known))
    said = call("upgrade", "--list", "--quiet").stderr
    assert said.startswith(f"tinamou: {outdated} runs on {OLDER}, and ") and said.endswith(f": tinamou upgrade {outdated}\n")
    assert all(number in said for number in row["cves"])
    if here.package.startswith("Debian 1:7.2+dfsg-7+deb12"):
        assert "CVE-2024-7409" in row["cves"]


HOOK = Path(__file__).parents[2] / "data/apt/90tinamou"


def test_apt_says_so_after_it_installed_something(outdated: str, tmp_path: Path) -> None:
    """The real apt and dpkg, which install a package into a folder."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        pytest.skip("no apt on this host")
    package, root = tmp_path / "package", tmp_path / "root"
    (package / "DEBIAN").mkdir(parents=True)
    control = "Package: nothing\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: nothing\n"
    (package / "DEBIAN/control").write_text(control)
    subprocess.run(["dpkg-deb", "-b", package, tmp_path / "nothing.deb"], check=True, capture_output=True)
    for name in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "archives/partial", "lists/partial", "bin"):
        (root / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    source = Path(tinamou_package.__file__).parents[1]
    (root / "bin/tinamou").write_text(f'#!/bin/sh\nPYTHONPATH={source} exec {sys.executable} -m tinamou "$@"\n')
    (root / "bin/tinamou").chmod(0o755)
    dpkg = [
        word
        for one in (f"--root={root}", "--force-not-root", "--log=/dev/null")
        for word in ("-o", f"DPkg::Options::={one}")
    ]
    folders = {
        "Dir::State": root,
        "Dir::State::status": root / "var/lib/dpkg/status",
        "Dir::State::lists": root / "lists",
        "Dir::Cache": root,
        "Dir::Cache::archives": root / "archives",
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": "/dev/null",
        "Debug::NoLocking": "true",
    }
    options = [word for key, value in folders.items() for word in ("-o", f"{key}={value}")]
    environment = {**os.environ, "PATH": f"{root}/bin:{os.environ['PATH']}", "DEBIAN_FRONTEND": "noninteractive"}
    words = ["apt-get", "-c", str(HOOK), *options, *dpkg, "-y", "install", str(tmp_path / "nothing.deb")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "Setting up nothing" in done.stdout
    assert f"tinamou: {outdated} runs on {OLDER}" in done.stderr
