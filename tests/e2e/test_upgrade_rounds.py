"""A machine that is upgraded again and again, and at random moments loses either QEMU or the command: it is there, once.

``TINAMOU_ROUNDS`` says how often, ``TINAMOU_SEED`` which moments.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from statistics import median

import pytest
from typed import call, tinamou

from tinamou import Machine
from tinamou.machine import sockets_aside
from tinamou.machine.reconcile import reconcile, strays
from tinamou.state import machines

ROUNDS = int(os.environ.get("TINAMOU_ROUNDS", "5"))
SEED = os.environ.get("TINAMOU_SEED", "1")
BOOT = "/proc/sys/kernel/random/boot_id"
LAST = "dd if=/dev/vda bs=512 count=1 2>/dev/null | tr -dc '0-9\\n' | head -1"
WRITES = f"""
i=$({LAST})
(while :; do echo $((++i)) > /dev/vda; sync; echo $i > /tmp/part; mv /tmp/part /tmp/synced; done) >/dev/null 2>&1 &
until [ -e /tmp/synced ]; do usleep 10000; done
"""
"""A number after the other, on the disk, and in memory when it is there for good."""

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(300 + 60 * ROUNDS)]


def test_upgraded_again_and_again() -> None:
    pauses = []
    with Machine(forkable=True, disks=[{"size": "8M"}]) as machine:
        machine.run(f"dd if=/dev/urandom of=/tmp/f bs=1M count=20 2>&1; sha256sum /tmp/f > /tmp/sum; {WRITES}")
        boot, synced = machine.run(f"cat {BOOT}").text, 0
        for _ in range(ROUNDS):
            before = machine.record.process
            done = machine.upgrade()
            assert (done.why, done.note) == ("", "")
            assert machine.record.process != before and strays(machine.record.path) == [machine.record.process]
            last = int(machine.run("cat /tmp/synced").text)
            assert last > synced and int(machine.run(LAST).text) >= last
            synced = last
            pauses.append(done.pause)
        assert machine.run(f"cat {BOOT}").text == boot
        assert machine.run("sha256sum -c /tmp/sum").text == "/tmp/f: OK"
        assert abs(float(machine.run("date +%s").text) - time.time()) < 2
    print(f"{ROUNDS} upgrades: median {median(pauses) * 1000:.0f} ms, longest {max(pauses) * 1000:.0f} ms")


class Killing(threading.Thread):
    """Kills the command at some moment of it, or from when there are two QEMUs on that of the record or the other one."""

    def __init__(self, who: str, command: subprocess.Popen[str], within: float, dice: random.Random) -> None:
        super().__init__()
        self._who, self._command = who, command
        self._after = dice.random() * (within if who == "command" else within / 20)
        self.done = False
        """Whether there was something to kill."""

    def run(self) -> None:
        """Wait for the moment, and kill."""
        record = machines.find("kept")
        while self._who != "command" and self._command.poll() is None and len(strays(record.path)) < 2:
            time.sleep(0.001)
        time.sleep(self._after)
        if self._who == "command":
            self.done = self._command.poll() is None
            self._command.kill()
            return
        record = machines.find("kept")
        for process in strays(record.path):
            if (process == record.process) == (self._who == "named"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                    self.done = True


def test_either_qemu_or_the_command_is_killed() -> None:
    """Who kills the QEMU that runs the machine ends it, as ever; every other moment leaves it running, once."""
    dice = random.Random(SEED)
    found: dict[str, int] = {}
    tinamou("run", "-d", "--name", "kept", "--net", "none", "--disk", "size=8M", "--set", "memory.forkable=true")
    tinamou("exec", "kept", "--", "sh", "-c", WRITES)
    try:
        began = time.monotonic()
        tinamou("upgrade", "kept")
        usual = time.monotonic() - began
        for number in range(ROUNDS):
            who = dice.choice(("command", "command", "other", "other", "named"))
            synced, boot = (tinamou("exec", "kept", "--", "cat", one).strip() for one in ("/tmp/synced", BOOT))
            line = [sys.executable, "-m", "tinamou", "upgrade", "kept"]
            command = subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            killing = Killing(who, command, usual, dice)
            killing.start()
            said = command.communicate(timeout=120)[1]
            killing.join()
            for told in reconcile():
                print(f"round {number}: {told}")
            record = machines.find("kept")
            what = f"{who} {'killed' if killing.done else 'not there'}, {'runs' if record.running else 'ended'}"
            found[what] = found.get(what, 0) + 1
            assert "Traceback" not in said, said
            assert strays(record.path) == ([record.process] if record.running else []), what
            assert sockets_aside.left(record.path) == []
            if record.running:
                assert tinamou("exec", "kept", "--", "cat", BOOT).strip() == boot, what
            else:
                assert killing.done and who != "command", (what, said)
                tinamou("start", "kept")
            assert int(tinamou("exec", "kept", "--", "sh", "-c", LAST)) >= int(synced), what
            if what.endswith("ended"):
                tinamou("exec", "kept", "--", "sh", "-c", WRITES)
    finally:
        print(found)
        call("rm", "-f", "kept")
