"""``tinamou run`` from a user's chair: one command in a throw-away machine, its output and status, and nothing left."""

from __future__ import annotations

import json
import os
import signal

import pytest
from typed import begin, call, eventually

pytestmark = pytest.mark.vm
FETCHED = [pytest.param("10", marks=pytest.mark.qemu10), pytest.param("11", marks=pytest.mark.qemu11)]


@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
def test_every_architecture_answers(arch):
    done = call("run", "--arch", arch, "--", "uname", "-m")
    assert (done.returncode, done.stdout) == (0, f"{arch}\n"), done.stderr


@pytest.mark.parametrize("number", FETCHED)
@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
def test_another_qemu_too(arch, number):
    pattern = os.environ[f"TINAMOU_QEMU{number}"]
    done = call("run", "--arch", arch, "--", "uname", "-m", TINAMOU_QEMU=pattern)
    assert (done.returncode, done.stdout) == (0, f"{arch}\n"), done.stderr
    planned = json.loads(call("plan", "--json", "--arch", arch, TINAMOU_QEMU=pattern).stdout)
    assert planned["binary"] == pattern.replace("{arch}", arch)


def test_status_and_streams_of_the_command():
    done = call("run", "--", "sh", "-c", "cat; echo complaint >&2; exit 7", input="fed\n")
    assert (done.returncode, done.stdout) == (7, "fed\n")
    assert "complaint" in done.stderr


def test_the_guest_is_named_and_sized_as_asked():
    done = call("run", "--name", "ada", "--cpus", "2", "--memory", "300M", "--", "sh", "-c", "hostname; nproc; free -m")
    name, count, *_ = done.stdout.splitlines()
    assert (name, count) == ("ada", "2")
    total = int(done.stdout.partition("Mem:")[2].split()[0])
    assert 200 < total <= 300


def test_landing_on_emulation_is_said_once():
    done = call("run", "--", "true")
    works = any(row["works"] and row["accel"] != "tcg" for row in json.loads(call("accel", "--json").stdout))
    assert done.stderr.count("TCG emulation") == (0 if works else 1)


def test_a_named_accelerator_that_does_not_work_is_refused(leftovers):
    rows = {row["accel"]: row for row in json.loads(call("accel", "--json").stdout)}
    if rows["kvm"]["works"]:
        pytest.skip("KVM works on this host, so asking for it is not refused")
    done = call("run", "--accel", "kvm", "--", "true")
    assert done.returncode == 112
    assert rows["kvm"]["what"] in done.stderr
    assert leftovers.found() == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--set", "nmae=x", "--cpus", "0"], 110, ["nmae", "did you mean name?", "cpu.count"]),
        (["--set", "cpu.sockets=3", "--cpus", "4"], 110, ["topology"]),
        (["nosuchimage"], 117, ["nosuchimage"]),
        (["/nowhere/disk.qcow2"], 117, ["/nowhere/disk.qcow2"]),
        (["--firmware", "bios"], 112, ["boot.firmware"]),
        (["--set", 'qemu_args=["-nonsense"]'], 114, ["-nonsense", "command line"]),
        (["--cmdline", "rdinit=/nonexistent"], 116, ["Kernel panic"]),
        (["--cmdline", "rdinit=/bin/sh", "--timeout", "6"], 116, ["did not answer within 6 s"]),
        (["--disk", "path=/nowhere.raw"], 117, ["/nowhere.raw"]),
        (["--no-such-option"], 2, ["no-such-option"]),
    ],
)
def test_bad_input_is_explained_and_leaves_nothing(words, code, said, leftovers):
    done = call("run", *words, "--", "true")
    assert done.returncode == code, done.stderr
    assert all(text in done.stderr + done.stdout for text in said), done.stderr
    assert "Traceback" not in done.stderr
    assert leftovers.found() == []


def test_a_binary_that_is_not_there_or_is_none(tmp_path, leftovers):
    assert call("run", "--", "true", TINAMOU_QEMU="/nowhere/qemu").returncode == 111
    assert call("run", "--", "true", TINAMOU_QEMU="/bin/true").returncode == 111
    assert leftovers.found() == []


def test_an_error_as_json():
    done = call("run", "--json", "--cpus", "0", "--", "true")
    error = json.loads(done.stdout)
    assert (error["code"], error["problems"][0]["path"]) == (110, "cpu.count")


def test_killing_the_command_ends_its_machine(state, leftovers):
    running = begin("run", "--name", "doomed", "--", "sleep", "1000")
    try:
        eventually(lambda: _guest_runs(state, "doomed"), "the guest's command")
        running.kill()
        running.wait()
        eventually(lambda: call("ls", "--json").stdout.strip() == "[]", "the end of its machine")
        assert leftovers.settle() == []
    finally:
        running.kill()


def test_interrupting_the_command_ends_its_machine(state, leftovers):
    running = begin("run", "--name", "stopped", "--", "sleep", "1000")
    try:
        eventually(lambda: _guest_runs(state, "stopped"), "the guest's command")
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(timeout=120) == 130
        assert leftovers.found() == []
    finally:
        running.kill()


def _guest_runs(state, name):
    log = state / "machines" / name / "serial.log"
    return log.exists() and call("exec", name, "--", "pidof", "sleep").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_ending_the_command_ends_its_machine(number, state, leftovers):
    running = begin("run", "--name", "ended", "--", "sleep", "1000")
    try:
        eventually(lambda: _guest_runs(state, "ended"), "the guest's command")
        os.kill(running.pid, number)
        assert running.wait(timeout=120) == 128 + number
        assert leftovers.found() == []
    finally:
        running.kill()


def test_a_throw_away_machine_ends_with_the_shell_on_its_console(leftovers):
    done = call("run", input="hostname\nexit\n")
    assert done.returncode == 0, done.stderr
    assert leftovers.found() == []
