"""Started by tinamou itself: a QEMU and a guest that never stop talking, and real machines beside a lying one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lying import command, machine, rows

from tinamou import Machine
from tinamou.state.record import read
from tinamou.system import logs

pytestmark = pytest.mark.vm

FLOODING = """#!{python} -IS
import os, signal, sys
if not any("opaque=" in word for word in sys.argv):
    os.execv({real!r}, [{real!r}, *sys.argv[1:]])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
for number in range(3 * {full} // 1000):
    os.write(1, b"%09d " % number + b"x" * 989 + b"\\n")
for descriptor in (1, 2):
    try:
        os.ftruncate(descriptor, 1 << 40)
    except OSError as error:
        os.write(2, f"cannot be cut: {{error.strerror}}\\n".encode())
    try:
        os.write(os.open(f"/proc/self/fd/{{descriptor}}", os.O_RDWR | os.O_NONBLOCK), b"x")
    except OSError as error:
        os.write(2, f"cannot be opened: {{error.strerror}}\\n".encode())
os.write(2, b"\\x1b[2Jthe last word\\n")
signal.sigwait([signal.SIGUSR1])
"""


def test_a_qemu_that_floods_its_log(state, open_folder):
    real = shutil.which("qemu-system-x86_64")
    flooding = open_folder / "qemu-system-x86_64"
    python = os.path.realpath(sys.executable)
    flooding.write_text(FLOODING.format(python=python, real=real, full=logs.FULL))
    flooding.chmod(0o755)
    words = [sys.executable, "-m", "tinamou", "run", "-d", "--name", "flood"]
    environment = {**os.environ, "TINAMOU_QEMU": str(flooding)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        log = state / "machines/flood/qemu.log"
        deadline = time.monotonic() + 120
        while "the last word" not in logs.last_lines(log):
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < deadline, logs.last_lines(log)
            time.sleep(0.05)
        assert max(path.stat().st_size for path in (log, logs.older(log))) <= logs.FULL + (64 << 10)
        said = logs.last_lines(log, 5)
        assert said.count("cannot be cut") == 2
        if os.geteuid() == 0:
            assert said.count("cannot be opened: Permission denied") == 2
        os.kill(read(log.parent).pid, signal.SIGUSR1)
        _, complaint = run.communicate(timeout=60)
    assert run.returncode == 114
    assert r"\x1b[2Jthe last word" in complaint
    assert len(complaint) < 100_000
    assert not log.parent.exists()


def test_a_guest_that_floods_its_console(monkeypatch):
    monkeypatch.setattr("tinamou.prepare.logs.FULL", 32 << 10)
    with Machine() as vm:
        vm.run(f"i=0; while [ $i -lt 1500 ]; do i=$((i + 1)); echo line $i {'x' * 80}; done >/dev/console")
        log = Path(vm.record.directory, "serial.log")
        deadline = time.monotonic() + 60
        while "line 1500 " not in vm.log():
            assert time.monotonic() < deadline, vm.log()[-500:]
            time.sleep(0.1)
        assert logs.older(log).exists()
        assert max(path.stat().st_size for path in (log, logs.older(log))) <= 96 << 10
        assert "line 1400 " in vm.log()
        assert "line 1 " not in vm.log()
        assert vm.run("hostname").text == vm.name


def test_real_machines_beside_a_lying_one(state):
    assert command("run", "-d", "--name", "real", seconds=240).returncode == 0
    with machine("silent", qmp="silent", agent="silent"), machine("events", qmp="events", agent="garbage"):
        found = rows(command("ls", "--json"))
        assert {name: row["state"] for name, row in found.items()} == {
            "real": "running",
            "silent": "unknown",
            "events": "unknown",
        }
        readings = rows(command("stats", "--json"))
        assert readings["real"]["memory"]["guest"]
        assert readings["silent"]["missing"]
        assert command("pause", "real").returncode == 0
        assert rows(command("ls", "--json"))["real"]["state"] == "paused"
        assert command("stop", "real", seconds=120).returncode == 0
        assert command("rm", "real").returncode == 0
