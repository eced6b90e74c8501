"""A machine that stays: started in the background, looked at, paused, stopped, started again, removed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from typed import call, eventually

pytestmark = pytest.mark.vm


@pytest.fixture
def web():
    done = call("run", "-d", "--name", "web", "--disk", "size=64M")
    assert (done.returncode, done.stdout) == (0, "web\n"), done.stderr
    yield "web"
    call("rm", "-f", "web")


def shown(name):
    return json.loads(call("show", name, "--json").stdout)


def test_a_whole_life(web, leftovers):
    assert {"name", "state", "pid", "arch", "accel", "qmp", "ssh"} <= set(shown(web))
    assert [row["state"] for row in json.loads(call("ls", "--json").stdout)] == ["running"]
    assert call("exec", web, "--", "sh", "-c", "echo kept > /dev/vda; exit 3").returncode == 3
    assert call("pause", web).returncode == 0
    assert shown(web)["state"] == "paused"
    assert call("resume", web).returncode == 0
    assert shown(web)["state"] == "running"
    assert "already" in call("run", "-d", "--name", "web").stderr
    assert call("run", "-d", "--name", "web").returncode == 118
    assert call("rm", web).returncode == 118
    assert call("stop", web).returncode == 0
    assert (shown(web)["state"], shown(web)["pid"]) == ("stopped", None)
    assert call("exec", web, "--", "true").returncode == 118
    assert call("start", web).returncode == 0
    assert call("exec", web, "--", "sh", "-c", "head -c 4 /dev/vda").stdout == "kept"
    assert call("kill", web).returncode == 0
    assert call("rm", web).returncode == 0
    assert leftovers.found() == []


def test_reset_brings_the_guest_back(web):
    assert call("exec", web, "--", "touch", "/run/before").returncode == 0
    assert call("reset", web).returncode == 0
    eventually(lambda: call("exec", web, "--", "test", "!", "-e", "/run/before").returncode == 0, "a fresh guest")


def test_a_guest_that_powers_off_is_seen(web):
    call("exec", web, "--", "poweroff", "-f")
    eventually(lambda: shown(web)["state"] == "stopped", "the guest's own end")
    assert json.loads(call("ls", "--json").stdout)[0]["pid"] is None
    assert call("start", web).returncode == 0


def test_a_killed_qemu_is_seen_and_cleaned(web, leftovers):
    os.kill(shown(web)["pid"], signal.SIGKILL)
    eventually(lambda: shown(web)["state"] == "stopped", "the death of QEMU")
    assert call("rm", web).returncode == 0
    assert leftovers.found() == []


def test_files_go_in_and_out(web, tmp_path):
    data = os.urandom(300_000)
    (tmp_path / "in").write_bytes(data)
    assert call("cp", str(tmp_path / "in"), f"{web}:/root/file").returncode == 0
    assert call("cp", f"{web}:/root/file", str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out").read_bytes() == data


def test_logs_and_unknown_names(web):
    assert call("logs", web).returncode == 0
    done = call("show", "wbe")
    assert done.returncode == 118
    assert "did you mean web?" in done.stderr


def test_a_command_has_the_environment_it_is_given(web):
    done = call("exec", web, "--env", "ONE=1 = one", "--env", "TWO=", "--", "sh", "-c", 'echo "$ONE-$TWO-"')
    assert (done.returncode, done.stdout) == (0, "1 = one--\n"), done.stderr
    refused = call("exec", web, "--env", "ONE", "--", "true")
    assert refused.returncode == 110
    assert "NAME=VALUE" in refused.stderr


def test_the_end_of_a_log_and_a_readable_entry(web):
    def ends_alike() -> bool:
        """The guest answers before the shell on its console has begun, and its kernel may say something at any time."""
        whole = call("logs", web).stdout.splitlines()
        return len(whole) > 2 and call("logs", web, "--tail", "2").stdout.splitlines() == whole[-2:]

    eventually(ends_alike, "the end of the log")
    assert call("logs", web, "--tail", "-1").returncode == 2
    told = call("show", web).stdout
    assert "spec.disk" in told and "{'" not in told.partition("spec.disk")[0]


def test_removing_needs_names_and_knows_them_all(web):
    assert call("rm").returncode == 2
    assert call("rm", "-f", web, "nobody").returncode == 118
    assert shown(web)["state"] == "running"


def test_a_screen_can_be_reached(leftovers):
    import socket

    assert call("run", "-d", "--name", "screen", "--display", "vnc").returncode == 0
    try:
        kind, _, path = shown("screen")["display"].partition("+unix://")
        with socket.socket(socket.AF_UNIX) as viewer:
            viewer.connect(path)
            assert (kind, viewer.recv(4)) == ("vnc", b"RFB ")
    finally:
        call("rm", "-f", "screen")
    assert leftovers.found() == []


def test_the_process_is_confined(web):
    lines = Path(f"/proc/{shown(web)['pid']}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    if os.geteuid() == 0:
        assert {int(uid) for uid in status["Uid"].split()} == {shown(web)["uid"]}
        assert int(status["CapBnd"], 16) == 0
        assert shown(web)["uid"] >= 1_900_000_000
