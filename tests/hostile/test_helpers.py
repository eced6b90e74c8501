"""Processes of other users that look like ours: they are neither taken for ours nor ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from lying import command

from tinamou.blueprint import JoinNetwork, StartHelper, Why
from tinamou.machine.reconcile import strays
from tinamou.prepare import helper_processes, networks
from tinamou.prepare.apply import undo
from tinamou.prepare.journal import Journal
from tinamou.state import machines
from tinamou.state.networks import Network
from tinamou.system.spawn import Process, alive, process_of

NOBODYS = 64123
"""A user id that no account has."""

HELPER = "import socket, sys, time; s = socket.socket(1); s.bind(sys.argv[1]); s.listen(); time.sleep(600)"


DISGUISE = """
import ctypes, os, time
words = bytes.fromhex(os.environ["WORDS"])
start = int(open("/proc/self/stat").read().rpartition(")")[2].split()[45])
ctypes.memmove(start, words, len(words))
print("ready", flush=True)
time.sleep(600)
"""
"""Writes over its own arguments (source: proc_pid_stat(5), arg_start)."""


@contextlib.contextmanager
def disguised(argv: Sequence[str], *, uid: int | None = None) -> Iterator[Process]:
    """A process that shows this command line, of another user where one is named; its program is python."""
    words = b"".join(os.fsencode(word) + b"\0" for word in argv)
    python = [os.path.realpath(sys.executable), "-c", 'import os;exec(os.environ["DO"])']
    pad = len(words) - sum(len(word) + 1 for word in python) - 1
    environment = {"DO": DISGUISE, "WORDS": words.hex()}
    command = [*python, "x" * pad]
    with subprocess.Popen(command, user=uid, group=uid, env=environment, stdout=subprocess.PIPE, cwd="/") as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert Path(f"/proc/{process.pid}/cmdline").read_bytes() == words
            yield process_of(process.pid)
        finally:
            process.kill()


def helper(folder: Path, owner: int | None = None) -> StartHelper:
    """One that makes its socket and waits; its program is one that everybody has."""
    socket = str(folder / "helper.sock")
    python = os.path.realpath(sys.executable)
    return StartHelper("helper", (python, "-c", HELPER, socket), socket, Why("test", "test"), owner)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "m"
    made.mkdir()
    return made


def test_a_helper_is_known_by_its_number(folder):
    journal, step = Journal(folder), helper(folder)
    helper_processes.start(step, journal)
    [entry] = journal.open_entries().values()
    known = helper_processes.running(step, journal)
    assert known is not None
    assert (entry["pid"], entry["started"]) == (known.pid, known.started)
    with disguised(step.argv):  # the same again
        assert helper_processes.running(step, journal) == known
        helper_processes.stop(entry)
        assert not alive(known)


def test_one_whose_number_was_not_written_is_found(folder):
    journal, step = Journal(folder), helper(folder)
    helper_processes.start(step, journal)
    [entry] = journal.open_entries().values()
    lost = {key: value for key, value in entry.items() if key not in ("pid", "started")}
    known = helper_processes.found(lost)
    assert known is not None
    helper_processes.stop(lost)
    assert not alive(known)


def test_a_number_that_another_process_has_got(folder):
    step = helper(folder)
    with disguised(["another", *step.argv]) as other:
        entry = {"argv": list(step.argv), "owner": None, "pid": other.pid, "started": other.started - 1}
        assert helper_processes.found(entry) is None
        helper_processes.stop(entry)
        assert alive(other)


def test_the_same_words_of_another_program(folder):
    words = ["/bin/sleep", *helper(folder).argv]
    with disguised(words) as other:
        for entry in ({"argv": words}, {"argv": words, "pid": other.pid, "started": other.started}):
            assert helper_processes.found(entry) is None
            helper_processes.stop(entry)
            assert alive(other)


@pytest.mark.root
def test_another_users_helper(folder):
    words = list(helper(folder).argv)
    with disguised(words, uid=NOBODYS) as fake:
        entry = {"argv": words, "owner": None, "log": str(folder / "helper.log")}
        for known in ({}, {"pid": fake.pid, "started": fake.started}):
            assert helper_processes.found({**entry, **known}) is None
            helper_processes.stop({**entry, **known})
            assert alive(fake)
        assert helper_processes.found({**entry, "owner": NOBODYS}) == fake


@pytest.mark.root
def test_another_users_machine(state):
    folder = machines.machines_dir() / "cut-short"
    folder.mkdir(mode=0o711)
    words = ["qemu-system-x86_64", "-add-fd", f"fd=7,set=1,opaque={folder}/qmp.sock", "x" * 200]
    with disguised(words, uid=NOBODYS) as fake:
        assert strays(folder) == []
        assert "removed the remains" in command("ls").stderr
        assert alive(fake)
        assert not folder.exists()


@pytest.fixture
def network(state: Path) -> Iterator[tuple[JoinNetwork, Journal]]:
    """A network of its own on this host, and where it is written down that it is to go again."""
    if not shutil.which("dnsmasq"):
        pytest.skip("no dnsmasq on this host (script/setup installs it)")
    mark = os.getpid() % 250  # the same test of another checkout may run beside
    place = {"network": "fake", "bridge": f"tm-fake{mark}", "subnet": f"10.77.{mark}.0/24", "prefix6": "", "isolated": True}
    who = {"member": "m.0", "machine": "m", "mac": "52:54:00:00:00:09", "address": f"10.77.{mark}.9", "address6": ""}
    step = JoinNetwork(**place, **who, host=False, why=Why("test", "test"))
    folder = machines.machines_dir() / "m"
    folder.mkdir(mode=0o711)
    journal = Journal(folder)
    yield step, journal
    journal.give_back(undo)


@pytest.mark.root
def test_another_users_dnsmasq(network):
    step, journal = network
    words = networks.dnsmasq_words(Network(step.network, step.bridge, step.subnet, isolated=True))
    with disguised(words, uid=NOBODYS) as fake:
        networks.join(step, journal)
        served = networks.server(Network(step.network, step.bridge, step.subnet, isolated=True))
        assert served is not None
        assert served != fake
        assert Path(f"/proc/{served.pid}/exe").readlink().name == "dnsmasq"
        journal.give_back(undo)
        assert not alive(served)
        assert alive(fake)


@pytest.mark.parametrize("socket", ["share0.sock", "tpm/swtpm.sock", "net1/passt.sock"])
def test_a_log_lies_in_no_folder_of_a_helper(tmp_path: Path, socket: str) -> None:
    assert helper_processes._log(tmp_path / socket, tmp_path) == tmp_path / f"{socket[:-5].replace('/', '-')}.log"
