"""A running machine goes to another host: two state directories, and a real ssh between them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import sealing
from two_hosts import Two, started
from typed import TINAMOU, begin, call, eventually, tinamou

from tinamou.fleet import hosts
from tinamou.state import moves

pytestmark = pytest.mark.vm

DYING = Path(__file__).with_name("dying.py")


def test_a_machine_goes_to_another_host_with_its_memory_and_disk(two: Two) -> None:
    before = started(two)
    source = two.here()
    moved = json.loads(tinamou("move", "web", "there", "--line", "tls", "--json"))
    assert 0 < moved["downtime"] < moved["total"]
    assert moved["line"] == "tls"
    assert sorted(moved["stages"], key=moved["stages"].__getitem__) == list(moved["stages"])
    assert moved["memory"] > 1 << 20
    assert moved["rounds"] >= 1
    assert two.notes(moved) == []
    two.goes_on(before, away=True)
    here, away = two.here(), two.away()
    assert here is not None
    assert away is not None
    assert source is not None
    assert not source.running
    assert (moves.phase(here), moves.phase(away), away.generation) == (moves.LEFT, "", here.generation + 1)
    assert json.loads(tinamou("ls", "--json"))[0]["state"] == "moved"
    refused = call("start", "web")
    assert refused.returncode == 118
    assert "web has moved to there" in refused.stderr
    assert "has moved to there" in call("clone", "web", "other").stderr
    assert not here.file("disk0.qcow2").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("back")
def test_a_disk_that_both_hosts_see_is_not_copied(two: Two, open_folder: Path) -> None:
    file = open_folder / "db.raw"
    file.write_bytes(bytes(16 << 20))
    before = started(two, "--set", f'disk=[{{path="{file}"}}]')
    moved = json.loads(tinamou("move", "web", "there", "--json"))
    assert moved["disks"] == 0
    two.goes_on(before, away=True)
    away = two.away()
    assert away is not None
    assert away.spec["disk"][0]["path"] == str(file)
    assert list(away.path.glob("disk0*")) == []
    assert list(open_folder.glob(".*")) == []
    two.say("stop", "web")
    two.say("start", "web")
    assert int(file.read_bytes()[4096:4608].split(b"\n")[0]) >= before[1]
    two.say("exec", "web", "--", "sh", "-c", "echo kept | dd of=/dev/vda bs=512 conv=fsync 2>/dev/null")
    assert file.read_bytes()[:5] == b"kept\n"


@pytest.mark.slow
@pytest.mark.usefixtures("back")
def test_it_comes_back_to_where_it_was(two: Two) -> None:
    before = started(two)
    for _ in range(2):
        tinamou("move", "web", "there")
        two.goes_on(before, away=True)
        two.say("move", "web", "back")
        two.goes_on(before, away=False)
    record = two.here()
    assert record is not None
    assert record.generation == 4


@pytest.mark.slow
@pytest.mark.parametrize("line", ["ssh", "packed"])
def test_ssh_carries_it_where_that_is_asked_for(line: str, two: Two) -> None:
    before = started(two)
    moved = json.loads(tinamou("move", "web", "there", "--line", line, "--json"))
    assert (moved["line"], two.notes(moved)) == (line, [])
    two.goes_on(before, away=True)


PAIRS = [
    pytest.param("10", "10", id="10-10", marks=pytest.mark.qemu10),
    pytest.param("10", "11", id="10-11", marks=[pytest.mark.qemu10, pytest.mark.qemu11]),
    pytest.param("", "11", id="installed-11", marks=pytest.mark.qemu11),
]


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_a_newer_qemu_takes_it(old: str, new: str, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    if old:
        monkeypatch.setenv("TINAMOU_QEMU", os.environ[f"TINAMOU_QEMU{old}"])
    known = hosts.find("there")
    chosen = f"TINAMOU_QEMU={os.environ[f'TINAMOU_QEMU{new}']}"
    hosts.remove("there")
    hosts.add(type(known)(**{**vars(known), "command": ("env", chosen, *known.command[1:])}))
    before = started(two)
    tinamou("move", "web", "there")
    two.goes_on(before, away=True)
    away = two.away()
    assert away is not None
    assert away.binary.startswith(chosen.partition("=")[2].partition("{")[0])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("swtpm") is None, reason="no swtpm")
def test_its_tpm_goes_along(two: Two) -> None:
    before = started(two, "--set", "tpm.enabled=true")
    key = sealing.primary(asked({}))
    blob = sealing.sealed(asked({}), key, b"the secret")
    moved = json.loads(tinamou("move", "web", "there", "--json"))
    assert two.notes(moved) == []
    two.goes_on(before, away=True)
    assert sealing.unsealed(asked(two.places), key, blob) == b"the secret"  # by the key that was loaded before it went
    two.say("restart", "web")
    assert sealing.unsealed(asked(two.places), sealing.primary(asked(two.places)), blob) == b"the secret"


def asked(places: dict[str, str]) -> sealing.Ask:
    """What asks the TPM of the machine on that host."""

    def ask(command: bytes) -> bytes:
        words = [*TINAMOU, "exec", "web", "--", "sh", "-c", sealing.ASK]
        return subprocess.run(words, env={**os.environ, **places}, input=command, stdout=-1, check=True, timeout=120).stdout

    return ask


VARIABLE = "/sys/firmware/efi/efivars/Moved-3d1b6bd2-7d84-4c3b-8f2e-0b6a4f2f9a51"
DEBIAN_WRITES = (
    "(i=0; while :; do i=$((i+1)); echo $i | dd of=/var/synced conv=fsync,notrunc 2>/dev/null || exit; "
    "echo $i >/dev/shm/part; mv /dev/shm/part /dev/shm/synced; done) </dev/null >/dev/null 2>&1 & "
    "until [ -e /dev/shm/synced ]; do sleep 0.1; done"
)
DEBIAN_SAYS = f"cat /dev/shm/synced; echo 3 >/proc/sys/vm/drop_caches; cat /var/synced; cat {VARIABLE} | tail -c +5"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_debian_goes_with_its_firmware_and_its_variables(two: Two) -> None:
    call("run", "-d", "--name", "web", "--memory", "512M", "--firmware", "uefi", "debian", timeout=1500)
    write = f"printf '\\007\\000\\000\\000kept' >{VARIABLE}; {DEBIAN_WRITES}"
    assert call("exec", "web", "--", "sh", "-c", write, timeout=600).returncode == 0
    before = tinamou("exec", "web", "--", "sh", "-c", DEBIAN_SAYS).split()
    moved = json.loads(tinamou("move", "web", "there", "--json"))
    assert two.notes(moved) == []
    memory, disk, kept = two.say("exec", "web", "--", "sh", "-c", DEBIAN_SAYS).split()
    assert int(disk) >= int(memory) >= int(before[0])
    assert kept == before[2] == "kept"
    assert call("restart", "web", **two.places, timeout=1500).returncode == 0
    again = two.say("exec", "web", "--", "sh", "-c", f"cat /var/synced; cat {VARIABLE} | tail -c +5").split()
    assert int(again[0]) >= int(disk)
    assert again[1] == "kept"


@pytest.mark.slow
def test_its_card_is_the_same_there(two: Two) -> None:
    tinamou("run", "-d", "--name", "web", "--memory", "192M", "--net", "user")
    place = "/sys/class/net/eth0/address"  # its driver is loaded once commands are answered
    address = ("exec", "web", "--", "sh", "-c", f"until [ -e {place} ]; do usleep 50000; done; cat {place}")
    mac = tinamou(*address)
    tinamou("move", "web", "there")
    assert two.say(*address) == mac
    two.say("restart", "web")
    assert two.say(*address) == mac


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("passt") is None, reason="no passt")
def test_connections_in_another_process_are_refused_or_cut(two: Two) -> None:
    tinamou("run", "-d", "--name", "web", "--memory", "192M", "--net", "passt")
    refused = call("move", "web", "there")
    assert "its connections are in another process (stream)" in refused.stderr
    assert two.away() is None
    tinamou("move", "web", "there", "--cut")
    assert two.say("exec", "web", "--", "echo", "on") == "on\n"


@pytest.mark.slow
def test_a_port_that_is_taken_there_is_refused(two: Two) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    net = f'net=[{{type="user",forward=["tcp:{port}:80"]}}]'
    tinamou("run", "-d", "--name", "web", "--memory", "192M", "--set", net)
    refused = call("move", "web", "there")  # both hosts are one: the port is taken
    assert str(port) in refused.stderr
    assert two.away() is None
    assert tinamou("exec", "web", "--", "echo", "on") == "on\n"


@pytest.mark.slow
def test_one_that_is_off_is_copied(two: Two) -> None:
    disk = 'disk=[{size="16M"}]'
    tinamou("run", "-d", "--name", "web", "--memory", "192M", "--net", "none", "--set", disk)
    tinamou("exec", "web", "--", "sh", "-c", "echo kept | dd of=/dev/vda bs=512 conv=fsync 2>/dev/null")
    assert "tinamou move web there" in call("copy", "web", "there").stderr
    tinamou("stop", "web")
    assert json.loads(tinamou("copy", "web", "there", "--json"))["name"] == "web"
    assert "exists" in call("copy", "web", "there").stderr
    two.say("start", "web")
    assert two.say("exec", "web", "--", "head", "-1", "/dev/vda") == "kept\n"


@pytest.mark.slow
def test_all_that_run_here_leave_at_once(two: Two) -> None:
    for name in ("web", "db"):
        tinamou("run", "-d", "--name", name, "--memory", "192M", "--net", "none")
    try:
        done = json.loads(tinamou("evacuate", "there", "--json"))
        assert [one["name"] for one in done["moved"]] == ["db", "web"]
        assert done["stay"] == {}
        assert [one["state"] for one in json.loads(tinamou("ls", "--json"))] == ["moved", "moved"]
        for name in ("web", "db"):
            assert two.say("exec", name, "--", "echo", "on") == "on\n"
    finally:
        call("rm", "-f", "db")
        call("rm", "-f", "db", **two.places)


REFUSED = {
    "share": (["--set", 'share=["/tmp"]'], "folders of this host open"),
    "snapshots": ([], "has snapshots"),
    "later": ([], "wait for its next start"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_go_is_refused_by_name_before_anything_moves(what: str, two: Two) -> None:
    more, said = REFUSED[what]
    tinamou("run", "-d", "--name", "web", "--net", "none", "--set", 'disk=[{size="16M"}]', *more)
    if what == "snapshots":
        tinamou("snapshot", "create", "web", "one")
    if what == "later":
        tinamou("set", "web", "cpu.count=2")
    refused = call("move", "web", "there")
    assert refused.returncode == 118
    assert said in refused.stderr
    assert two.away() is None
    record = two.here()
    assert record is not None
    assert record.move == {}
    assert tinamou("exec", "web", "--", "echo", "on") == "on\n"


def test_a_name_that_is_taken_there_is_refused_and_it_runs_on(two: Two) -> None:
    tinamou("run", "-d", "--name", "web", "--memory", "192M", "--net", "none", "--no-wait")
    (two.there / "machines/web").mkdir(parents=True)
    (two.there / "machines").chmod(0o711)
    other = {"name": "web", "spec": {"name": "web"}, "created": 1.0, "format": 1}
    (two.there / "machines/web/machine.json").write_text(json.dumps(other))
    (two.there / "machines/web/machine.json").chmod(0o600)
    refused = call("move", "web", "there")
    assert "there is a machine web here already" in refused.stderr
    record = two.here()
    assert record is not None
    assert record.running
    assert record.move == {}


def left(process: subprocess.Popen[bytes], line: str) -> None:
    """Return when the command has said that."""
    assert process.stderr is not None
    said = b""
    while line.encode() not in said:
        piece = os.read(process.stderr.fileno(), 4096)
        assert piece, said.decode()
        said += piece


@pytest.mark.slow
@pytest.mark.parametrize("line", ["copying disks", "sending memory"])
@pytest.mark.parametrize("who", ["mover", "receiver", "its QEMU there", "Ctrl-C"])
def test_whoever_is_killed_meanwhile_it_runs_on_here(who: str, line: str, two: Two) -> None:
    before = started(two)
    process = begin("move", "web", "there", "--limit", "4M")
    left(process, line)
    if who == "mover":
        process.kill()
    elif who == "Ctrl-C":
        process.send_signal(signal.SIGINT)
    else:
        away = two.away()
        assert away is not None
        os.kill(away.move["pid"] if who == "receiver" else away.pid, signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode != 0
    tinamou("ls")
    eventually(lambda: two.say("ls", "--json") == "[]\n", "nothing is left there")
    two.goes_on(before, away=False)
    tinamou("move", "web", "there")
    two.goes_on(before, away=True)


DEATHS = [
    ("here", "leave", "before"),
    ("here", "leave", "after"),
    ("here", "confirmed", "before"),
    ("there", "ready", "before"),
    ("there", "ready", "after"),
    ("there", "take_over", "before"),
    ("there", "take_over", "after"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("where", "step", "when"), DEATHS)
def test_a_kill_at_any_step_of_the_decision_leaves_one_machine(where: str, step: str, when: str, two: Two) -> None:
    before = started(two)
    known = hosts.find("there")
    dying = (str(DYING), step, when)
    words = [*TINAMOU, "move", "web", "there"]
    if where == "here":
        words = [sys.executable, *dying, "move", "web", "there"]
    else:
        hosts.remove("there")
        hosts.add(type(known)(**{**vars(known), "command": (*known.command[:-2], *dying)}))
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0, done.stdout
    hosts.remove("there")
    hosts.add(known)
    tinamou("ls")
    two.say("ls")
    here, away = two.here(), two.away()
    assert here is not None
    running = [one for one in (here, away) if one is not None and one.running and not moves.phase(one)]
    assert len(running) <= 1
    if moves.phase(here) == moves.LEFT:
        assert not here.running
        assert here.move["host"] == "there"
        if not here.move["told"]:
            assert "tells it" in call("start", "web").stderr
            assert "had left before" in call("move", "web", "there").stderr
    else:
        assert running == [here]
        two.goes_on(before, away=False)
        tinamou("move", "web", "there")
    two.goes_on(before, away=True)
