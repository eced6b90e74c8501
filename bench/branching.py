"""Forks of a machine that runs, as people call them: ``vm.fork()`` and a first command, beside an earlier build."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from bench.boot import the_guest
from bench.commands import both_builds
from bench.framework import Bar, Table, Way, Within

__all__ = ["tables"]

IDLE, HELD = "vm.fork(), 512 MiB idle", "vm.fork(), 2 GB held in 4 GiB"
AGAIN = "vm.fork() again, 2 GB held, 50 MB written since"
_PROGRAM = """
import json, sys, time
from tinamou import Machine
memory, held, written = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
from tinamou.machine import forking
taken = []
take = forking.take_checkpoint
async def taking(*given, **more):
    taken.append(await take(*given, **more))
    return taken[-1]
forking.take_checkpoint = taking
machine = None
for line in sys.stdin:
    if machine is None or not written:
        if machine is not None:
            machine.kill()
        machine = Machine(memory=memory, forkable=True)
        machine.start()
        if held:
            fill = f"mount -t tmpfs -o size=90% x /mnt; dd if=/dev/urandom of=/mnt/f bs=1M count={held} 2>&1"
            machine.run(fill, timeout=600)
        machine.fork().kill() if written else machine.run("true")
    if written:
        machine.run(f"dd if=/dev/urandom of=/tmp/g bs=1M count={written} 2>&1", timeout=600)
    began = time.perf_counter()
    fork = machine.fork()
    fork.run(["true"])
    print(json.dumps({"": time.perf_counter() - began, "stood still": taken[-1].pause}), flush=True)
    fork.kill()
if machine is not None:
    machine.kill()
"""


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """Here and as it was, in turns."""
    builds, missing = both_builds(the_guest(scratch), scratch)
    ways, bars = [], list[Bar]()
    for name, memory, held, written in ((IDLE, "512M", 0, 0), (HELD, "4G", 2000, 0), (AGAIN, "4G", 2000, 50)):
        for build in builds:
            paths = os.pathsep.join(map(str, build.paths))
            words = [sys.executable, "-c", _PROGRAM, memory, str(held), str(written)]
            asked = _Asked(words, {**os.environ, **build.environment, "PYTHONPATH": paths})
            stack.callback(asked.end)
            ways.append(Way(build.row(name), asked))
    if len(builds) > 1:
        bars = [Within(HELD, 0.1, builds[1].row(HELD)), Within(HELD, 1.2, IDLE)]
    notes = ["A new machine for each row but the last; the clock stops when a command has run in the fork."]
    title = "vm.fork() of a running machine → first command answered (tiny)"
    return [Table(title, ways, IDLE, notes, missing, bars=bars)]


class _Asked:
    """A program with a machine, which is asked for a fork by a line."""

    def __init__(self, words: list[str], environment: Mapping[str, str]) -> None:
        self._words, self._environment = words, environment
        self._process: subprocess.Popen[str] | None = None

    def __call__(self) -> Mapping[str, float]:
        if self._process is None:
            self._process = subprocess.Popen(
                self._words, env=dict(self._environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("fork\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the program ended with status {self._process.wait()}")
        found: dict[str, float] = json.loads(line)
        return found

    def end(self) -> None:
        """Have it end its machine."""
        if self._process is not None:
            self._process.communicate()
