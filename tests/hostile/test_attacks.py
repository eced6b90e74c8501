"""The attacks of script/attack see a wall that is left out; real machines withstand them but for what is known."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attacks.attacker import House
from attacks.house import Neighbourhood, Owner, of_root, reader
from attacks.puppet import Killed, Puppet, Refused
from attacks.trial import ATTACKS, Outcome, tried

from tinamou.blueprint import JoinNetwork, Why
from tinamou.prepare import networks
from tinamou.prepare.apply import undo
from tinamou.prepare.journal import Journal
from tinamou.state.networks import Network
from tinamou.system import confine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="ptrace: registers of x86-64 alone are known"),
]
NOBODYS = 1_899_999_998
SLEEP = ["sleep", "600"]
NAMESPACES = ["unshare", "--net", "--ipc", "--uts"]
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@pytest.fixture
def around() -> Iterator[Neighbourhood]:
    with Neighbourhood() as made:
        yield made


class Stage:
    """A house without machines: processes that stand where QEMU is, each behind the walls it is started with."""

    def __init__(self, around: Neighbourhood) -> None:
        self.around, self.owner = around, around.owner("stage")
        for folder in ("own", "beside"):
            self.owner.machine(folder).mkdir(parents=True)
            for path in (self.owner.machine(folder), self.owner.machine(folder).parent):
                path.chmod(0o711)
        for name in ("plan.json", "machine.json"):
            path = self.owner.machine("beside") / name
            path.write_text("{}")
            path.chmod(0o600)
        self.control = around.process(self.owner)
        self.house: House = around.house(
            self.owner, "own", {"same": (self.owner.machine("beside"), self.control)}, qemu=self.control
        )

    def started(self, words: list[str], **how: object) -> int:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, text=True, **how)  # type: ignore[call-overload]
        self.around.kept(process)
        deadline, before = (
            time.monotonic() + 60,
            {"setpriv", "prlimit", "unshare", "env", Path(sys.executable).resolve().name},
        )
        program = Path(f"/proc/{process.pid}/exe")
        while not words[0].endswith("python3") and program.readlink().name in before and time.monotonic() < deadline:
            time.sleep(0.02)
        return process.pid

    def ways(self, process: int, *names: str) -> dict[str, Outcome]:
        """What became of every way of these attacks, ``private-files /etc/shadow``."""
        chosen = [one for one in ATTACKS if one.name in names]
        assert len(chosen) == len(names)
        return {f"{one.attack} {one.way}": one for one in tried(process, self.house, "qemu", chosen, self.control)}


@pytest.fixture
def stage(around: Neighbourhood) -> Stage:
    return Stage(around)


def all_are(state: str, outcomes: dict[str, Outcome]) -> None:
    """Those that are not void, of which there are some."""
    counted = {name: one for name, one in outcomes.items() if one.state != "void"}
    assert counted
    assert {name: one for name, one in counted.items() if one.state != state} == {}


FILES = ("private-files", "other-machines-plan", "list-machines", "own-folder", "owners-folders")


def test_a_user_id_of_its_own(stage):
    held = stage.ways(stage.started([*confine.prefix(NOBODYS), *SLEEP]), *FILES, "owners-process", "same-state")
    all_are("refused", held)
    out = stage.ways(stage.started([*confine.prefix(None), *SLEEP]), *FILES)
    all_are("succeeded", out)


def test_no_capabilities(stage):
    attacks = ("administration", "mounts", "mknod", "forged-credentials")
    held = stage.ways(stage.started([*confine.prefix(NOBODYS), *SLEEP]), *attacks)
    all_are("refused", held)
    out = stage.ways(stage.started(SLEEP), *attacks)
    all_are("succeeded", out)


def test_namespaces(stage):
    attacks = ("services", "datagrams", "abstract-sockets", "listening", "shared-memory")
    all_are("refused", stage.ways(stage.started([*NAMESPACES, *SLEEP]), *attacks))
    all_are("succeeded", stage.ways(stage.started(SLEEP), *attacks))


EMPTY_ROOT = """
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.unshare(0x20000)
libc.mount(b"none", b"/", None, 0x44000, None)
libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)
os.chroot("/tmp")
os.chdir("/")
os.open("/ready", os.O_CREAT)
time.sleep(600)
"""


def test_an_empty_root(stage):
    """A mount namespace of its own where nothing is but an empty file system, entered after the program was loaded."""
    process = stage.started(["/usr/bin/python3", "-c", EMPTY_ROOT])
    while not Path(f"/proc/{process}/root/ready").exists():
        time.sleep(0.02)
    attacks = (
        "public-files",
        "private-files",
        "common-folders",
        "see-processes",
        "devices",
        "path-sockets",
        "list-machines",
    )
    held = stage.ways(process, *attacks)
    seen = {name for name, one in held.items() if one.state == "succeeded"}
    assert seen <= {f"see-processes {way}" for way in ("getsid", "pidfd_open", "sched_getaffinity", "get_robust_list")}, seen
    all_are("succeeded", stage.ways(stage.started(SLEEP), *attacks))


def test_limits(stage):
    attacks = ("many-threads", "many-descriptors", "much-memory", "locked-memory")
    limits = ["prlimit", "--nproc=50", "--nofile=64", f"--as={1 << 30}", f"--memlock={1 << 16}", "--core=0"]
    held = stage.ways(stage.started([*limits, *confine.prefix(NOBODYS), *SLEEP]), *attacks)
    all_are("refused", held)
    assert [one for one in held.values() if one.by in ("EAGAIN", "EBADF", "ENOMEM")]


@pytest.mark.vm
def test_qemus_own_filter(stage):
    words = ["qemu-system-x86_64", "-nodefaults", "-machine", "none", "-display", "none", "-S"]
    attacks = ("new-processes", "rights")
    filtered = stage.started([*words, "-sandbox", SANDBOX])
    deadline = time.monotonic() + 60
    while "Seccomp:\t2" not in Path(f"/proc/{filtered}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    held = stage.ways(filtered, *attacks)
    assert "ENOSYS" in {one.by for one in held.values()}
    for way in ("new-processes fork", "rights user namespace"):
        assert held[way].by in ("SIGSYS", "EPERM"), "the second from QEMU 8 on"
    out = stage.ways(stage.started(words), *attacks)
    all_are("succeeded", out)


def test_memory_others_have_too(stage):
    """Sealed memory, and a file that is open for reading; the file is opened for writing again where its mode permits."""
    sealed = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(sealed, 4096)
    from tinamou.system import ram

    ram.seal(sealed)
    os.fchmod(sealed, 0o400)
    plain = stage.owner.home / "kernel"
    plain.write_bytes(b"x" * 4096)
    with plain.open("rb") as reading:
        given = (sealed, reading.fileno())
        held = stage.ways(stage.started([*confine.prefix(NOBODYS), *SLEEP], pass_fds=given), "shared-files", "reopening")
        assert len(held) > 12
        all_are("refused", held)
        plain.chmod(0o666)
        out = stage.ways(stage.started([*confine.prefix(NOBODYS), *SLEEP], pass_fds=given), "reopening")
        all_are("succeeded", out)
    os.close(sealed)


def test_what_nobody_can_is_void(stage):
    held = stage.ways(stage.started([*confine.prefix(NOBODYS), *SLEEP]), "kinds-of-sockets")
    assert held["kinds-of-sockets packet"].state == "refused"
    assert "void" in {one.state for one in held.values()}, "no kernel has them all"


def test_the_process_goes_on(stage):
    """Copies die, what they are copies of does not, and its filter is in force again."""
    pid = stage.started([*confine.prefix(NOBODYS), *SLEEP])
    puppet = Puppet(pid)
    for _ in range(20):
        with puppet.copy() as copy:
            with pytest.raises(Refused, match="openat: ENOENT"):
                copy.call("openat", -100, "/nonexistent", 0)
            with pytest.raises(Killed, match="kill: SIGKILL"):
                copy.call("kill", copy.pid, 9)
    puppet.release()
    assert "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text()
    assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == ""


def test_the_writer_of_logs(stage):
    """It runs as root, without capabilities: no path but its folder's is open to it, and no call but a few."""
    from tinamou.prepare.logs import pipes_into

    with pipes_into(stage.owner.machine("own") / "qemu.log") as [end]:
        deadline, filtered = time.monotonic() + 60, False
        while not filtered:
            assert time.monotonic() < deadline
            writer = stage.owner.processes(f"{stage.owner.machine('own')}/").get("logwriter", 0)
            with contextlib.suppress(OSError):  # the one that made it has just ended
                filtered = "Seccomp:\t2" in Path(f"/proc/{writer}/status").read_text()
        outcomes = tried(writer, stage.house, "logwriter", ATTACKS, stage.control)
        assert {f"{one.attack} {one.way}" for one in outcomes if one.state == "succeeded"} == set()
        assert {one.by for one in outcomes if one.state == "refused"} >= {"SIGSYS"}
        os.write(end, b"it goes on")
    log, deadline = stage.owner.machine("own") / "qemu.log", time.monotonic() + 60
    while log.read_bytes() != b"it goes on":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def none_succeeded(outcomes: list[Outcome]) -> bool:
    """No way but those by design, of which each is tried."""
    assert [f"{one.attack} {one.way}" for one in outcomes if one.state == "succeeded"] == []
    assert sum(one.state == "refused" for one in outcomes) > 180
    return True


def test_who_reads_foreign_files(stage):
    assert none_succeeded(tried(reader(stage.around, stage.owner), stage.house, "reader", ATTACKS, stage.control))


@pytest.fixture
def network(stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Network, Journal]]:
    """A network without machines; IPv6 has dnsmasq keep one right more."""
    if not shutil.which("dnsmasq"):
        pytest.skip("no dnsmasq on this host (script/setup installs it)")
    monkeypatch.setenv("TINAMOU_STATE", str(stage.owner.home / "s"))
    monkeypatch.setenv("TINAMOU_RUN", str(stage.owner.home / "r"))
    made = Network("attacked", f"ta{os.getpid()}"[:15], "10.78.79.0/24", "fd00:78:79::/64", isolated=True)
    who = {"member": "own.0", "machine": "own", "mac": "52:54:00:00:00:09", "address": "10.78.79.9", "address6": ""}
    place = {"network": made.name, "bridge": made.bridge, "subnet": made.subnet, "prefix6": made.prefix6}
    step = JoinNetwork(**place, **who, isolated=True, host=False, why=Why("test", "test"))
    journal = Journal(stage.owner.machine("own"))
    networks.join(step, journal)
    yield made, journal
    journal.give_back(undo)


def test_who_answers_for_a_network(stage, network):
    process = networks.server(network[0])
    assert none_succeeded(tried(process.pid, stage.house, "dnsmasq", ATTACKS, stage.control))


@pytest.mark.vm
@pytest.mark.virtiofsd
@pytest.mark.timeout(600)
def test_real_machines(around: Neighbourhood):
    root, houses = of_root(around)
    control = around.process(Owner(0, root.home, root.cache, "control"))
    for house in houses.values():
        assert none_succeeded(tried(house.process, house, "qemu", ATTACKS, control))
    for role, process in houses["whole"].helpers.items():
        assert none_succeeded(tried(process, houses["whole"], role, ATTACKS, control))
    assert root.tinamou("exec", "fork", "--", "echo", "it goes on") == "it goes on\n"
