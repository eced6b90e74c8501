"""Another QEMU takes over a machine with a TPM: what it keeps and what it has measured is there, by one emulator."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cut_short import CUT_SHORT
from test_tpm import ENDORSEMENT_KEY, EXTEND, RANDOM, pcr, succeeded, tpm
from test_upgrade import PAIRS, REFUSES, binary, taken_over
from typed import call, tinamou

from tinamou import Machine
from tinamou.errors import TinamouError
from tinamou.machine import sockets_aside
from tinamou.machine.reconcile import reconcile, strays
from tinamou.prepare import helper_processes
from tinamou.prepare.journal import Journal
from tinamou.probe.qemu import find_binary
from tinamou.state import machines
from tinamou.state.record import Record
from tinamou.system.spawn import Process

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not shutil.which("swtpm_setup"), reason="swtpm-tools is not installed (script/setup test)"),
]


def emulator(record: Record) -> Process:
    """The one that the machine has, written down once, and no other of its command line."""
    [entry] = [one for one in Journal(record.path).open_entries().values() if one["kind"] == "helper"]
    found = helper_processes.found(entry)
    assert found is not None and helper_processes.all_of(entry) == [found]
    return found


@pytest.fixture
def kept() -> Iterator[str]:
    """A machine with a TPM that has measured something."""
    tinamou("run", "-d", "--name", "kept", "--net", "none", "--tpm", "--set", "memory.forkable=true")
    assert succeeded(tpm(Machine.open("kept"), EXTEND))
    yield "kept"
    call("rm", "-f", "kept")


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_what_it_keeps_and_has_measured_goes_on(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if old:
        monkeypatch.setenv("TINAMOU_QEMU", binary(old))
    with Machine(tpm=True, forkable=True, net=[]) as machine:
        machine.run("echo here >/tmp/f; sha256sum /tmp/f >/tmp/sum")
        key = tpm(machine, ENDORSEMENT_KEY)
        for _ in range(2):
            assert succeeded(tpm(machine, EXTEND))
            measured, before = pcr(machine), emulator(machine.record)
            assert taken_over(machine, new).why == ""
            assert emulator(machine.record) != before
            assert pcr(machine) == measured and tpm(machine, ENDORSEMENT_KEY) == key
            assert succeeded(tpm(machine, RANDOM))
        assert sockets_aside.left(machine.record.path) == []


@pytest.mark.parametrize("how", REFUSES)
def test_where_the_new_one_fails_the_first_emulator_goes_on(how: str, kept: str, open_folder: Path) -> None:
    wrapped = open_folder / "qemu-system-x86_64"
    wrapped.write_text(f'#!/bin/sh\n{REFUSES[how]}\nexec {find_binary("x86_64")} "$@"\n')
    wrapped.chmod(0o755)
    machine = Machine.open(kept)
    measured, before = pcr(machine), emulator(machine.record)
    with pytest.raises(TinamouError):
        machine.upgrade(str(wrapped))
    assert emulator(machine.record) == before
    assert succeeded(tpm(machine, RANDOM)) and pcr(machine) == measured
    assert machine.upgrade().why == "" and pcr(machine) == measured


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_command_that_is_killed_leaves_one_emulator(moment: str, kept: str) -> None:
    before, measured = machines.find(kept).process, pcr(Machine.open(kept))
    subprocess.run([sys.executable, "-c", CUT_SHORT, kept, moment], check=False, timeout=300)
    reconcile()
    record = machines.find(kept)
    assert (record.process == before) == (moment == "before")
    assert strays(record.path) == [record.process]
    assert emulator(record)
    machine = Machine.open(kept)
    assert pcr(machine) == measured and succeeded(tpm(machine, EXTEND))
    tinamou("stop", kept)
    tinamou("start", kept)
    assert succeeded(tpm(Machine.open(kept), ENDORSEMENT_KEY))
