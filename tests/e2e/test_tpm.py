"""A TPM of the machine's own: it answers, is that machine alone's, goes into forks and snapshots, and leaves nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tinamou import Machine
from tinamou.errors import StateError
from tinamou.machine.connected import Connected
from tinamou.machine.starting import begin_again
from tinamou.snapshots import extras
from tinamou.snapshots.machine_disks import Disks
from tinamou.state import machines
from tinamou.state.record import read

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not shutil.which("swtpm_setup"), reason="swtpm-tools is not installed (script/setup test)"),
]

RANDOM = "80010000000c0000017b0008"
ENDORSEMENT_KEY = "80010000000e0000017381010001"
CLEAR = "80020000001b000001264000000a000000094000000900000000" + "00"
EXTEND = "80020000004100000182000000100000000940000009000000000000000001000b" + "a5" * 32
"""TPM 2.0 commands: 8 random bytes, the public endorsement key, clear, extend PCR 16 (TCG library specification, part 3)."""


def tpm(machine: Machine, command: str) -> str:
    """The answer of the guest's TPM to a raw command, in hexadecimal; the code of success is 00000000 behind 12 digits."""
    words = "".join(f"\\x{command[at : at + 2]}" for at in range(0, len(command), 2))
    return machine.run(
        f"exec 3<>/dev/tpm0; printf '{words}' >&3; dd bs=4096 count=1 <&3 2>/dev/null | xxd -p | tr -d '\\n'"
    ).text


def succeeded(answer: str) -> bool:
    return answer[12:20] == "00000000"


def pcr(machine: Machine) -> str:
    return machine.run("cat /sys/class/tpm/tpm0/pcr-sha256/16").text


def test_it_answers(leftovers):
    with Machine(tpm=True) as machine:
        assert machine.run("cat /sys/class/tpm/tpm0/tpm_version_major").text == "2"
        assert succeeded(tpm(machine, RANDOM)) and len(tpm(machine, RANDOM)) == 40
        assert succeeded(tpm(machine, ENDORSEMENT_KEY))
        if os.geteuid() == 0:
            folder = machine.record.file("tpm")
            assert folder.stat().st_uid not in (0, machine.record.uid)
            assert folder.stat().st_mode & 0o077 == 0
    assert leftovers.found() == []


def test_another_architecture_sees_it(leftovers):
    """Debian's cloud kernel for arm64 has no driver for it: that the guest is told where it is must do."""
    with Machine(tpm=True, arch="aarch64") as machine:
        assert "tpm_tis" in machine.run("ls /sys/bus/platform/devices").text
    assert leftovers.found() == []


def test_two_machines_have_two(leftovers):
    with Machine(tpm=True) as one, Machine(tpm=True) as other:
        keys = {tpm(one, ENDORSEMENT_KEY), tpm(other, ENDORSEMENT_KEY)}
        assert len(keys) == 2 and all(map(succeeded, keys))
    assert leftovers.found() == []


def test_it_goes_along_into_forks(leftovers):
    """What was measured before the fork is there; what is measured after it is each machine's own."""
    with Machine(tpm=True, forkable=True) as source:
        assert succeeded(tpm(source, EXTEND))
        before = pcr(source)
        assert set(before) != {"0"}
        with source.fork(2) as forks:
            assert [pcr(one) for one in forks] == [before, before]
            assert tpm(forks[0], ENDORSEMENT_KEY) == tpm(source, ENDORSEMENT_KEY)
            assert succeeded(tpm(forks[0], EXTEND))
            assert pcr(forks[0]) != before
            assert pcr(forks[1]) == pcr(source) == before
    assert leftovers.found() == []


def test_it_is_the_same_after_a_restart_and_comes_back_with_a_snapshot(leftovers):
    with Machine(tpm=True, keep=True, name="keyed") as machine:
        key = tpm(machine, ENDORSEMENT_KEY)
        assert succeeded(key)
        directory = machine.record.file(".")
    record = read(directory)
    disks = Disks(directory, record.uid)
    extras.keep(disks, 1)
    kept = {path.name for path in (extras.folder(disks, 1) / "tpm").iterdir()}
    assert kept == {"tpm2-00.permall"}
    with again(directory) as machine:
        assert tpm(machine, ENDORSEMENT_KEY) == key
        assert succeeded(tpm(machine, CLEAR))
        assert not succeeded(tpm(machine, ENDORSEMENT_KEY))
        machine.stop()
    extras.put_back(disks, 1)
    with again(directory) as machine:
        assert tpm(machine, ENDORSEMENT_KEY) == key
    machines.remove(directory)
    assert leftovers.found() == []


PLANT = """
import os, sys
os.chdir(sys.argv[1])
way, secret = sys.argv[2:]
os.rename("tpm2-00.permall", "true")
if way == "link": os.symlink(secret, "tpm2-00.permall")
if way == "second name": os.link("true", "tpm2-00.permall")
if way == "pipe": os.mkfifo("tpm2-00.permall")
if way == "size": os.truncate(os.open("tpm2-00.permall", os.O_CREAT | os.O_WRONLY), 1 << 40)
if way == "beside":
    os.rename("true", "tpm2-00.permall")
    os.symlink(secret, "x"), os.symlink("/etc", "folder"), os.mkfifo("pipe"), os.symlink(secret, "tpm2-00.")
"""


@pytest.mark.root
@pytest.mark.parametrize("way", ["link", "second name", "pipe", "size", "beside"])
def test_an_emulator_that_was_taken_over_gets_no_file_copied_for_it(way: str, tmp_path: Path) -> None:
    """It makes its folder into whatever it likes, under its own user id: none of that goes into snapshots and backups."""
    secret = tmp_path / "secret"
    secret.write_text("root's own")
    secret.chmod(0o600)
    with Machine(tpm=True, keep=True, name="keyed") as machine:
        record = machine.record
        user = record.file("tpm").stat().st_uid
        words = [record.file("tpm"), way, secret]
        subprocess.run(["python3", "-c", PLANT, *words], check=True, user=user, group=user, extra_groups=[])
        disks = Disks(record.file("."), record.uid)
        if way == "beside":
            extras.keep(disks, 1)
            assert [path.name for path in (extras.folder(disks, 1) / "tpm").iterdir()] == ["tpm2-00.permall"]
        else:
            with pytest.raises(StateError, match="is not copied") as refused:
                extras.keep(disks, 1)
            assert "tpm2-00.permall" in refused.value.why
        kept = [path for path in extras.folder(disks, 1).rglob("*") if path.is_file()]
        assert "root's own" not in [path.read_bytes().decode(errors="replace") for path in kept]
    machines.remove(record.file("."))


def again(directory: Path) -> Machine:
    """The kept machine, started again and waited for."""
    from tinamou.machine.booting import until_up
    from tinamou.machine.facade import AsyncMachine
    from tinamou.system.loop_thread import wait_for

    started = begin_again(read(directory), dies_with_parent=True)
    machine = Connected(started.record, started.plan)
    wait_for(until_up(machine))
    return Machine.around(AsyncMachine.around(machine))
