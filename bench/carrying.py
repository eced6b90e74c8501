"""Data into a guest and out of it: copied files, a command's input and its output, beside the earlier build's copy."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from bench.boot import the_guest
from bench.commands import OLD, Build, both_builds
from bench.framework import AtLeast, Bar, Table, Way
from bench.guest_line import PROCESSOR
from bench.service import computed

__all__ = ["tables"]

SIZE = int(os.environ.get("TINAMOU_BENCH_MIB", "1024"))
"""MiB that are carried; the earlier build, which takes a second for each, carries less."""
OLD_SIZE = 8
INTO, OUT, INPUT, OUTPUT = "cp into the guest", "cp out of it", "standard input", "standard output"


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """One table: the time each MiB takes."""
    builds, missing = both_builds(the_guest(scratch), scratch)
    ways: list[Way] = []
    for build in builds:
        ways += _ways(stack, build, scratch, OLD_SIZE if build.name else SIZE)
    old = builds[-1].row(INTO)
    bars: list[Bar] = [AtLeast(row, 20, old) for row in (INTO, OUT, INPUT, OUTPUT) if len(builds) > 1]
    notes = [f"Times of one MiB, of {SIZE} at once ({OLD} of {OLD_SIZE}); processor time is that of QEMU and the command."]
    return [Table(f"{SIZE} MiB, a MiB", ways, old, notes, missing, bars=bars)]


def _ways(stack: ExitStack, build: Build, scratch: Path, size: int) -> list[Way]:
    environment = {**os.environ, **build.environment}
    file, back = scratch / f"{build.name}.data", scratch / f"{build.name}.back"
    with file.open("wb") as to:
        for _ in range(size):
            to.write(os.urandom(1 << 20))
    words = [str(build.command), "run", "-d", "--name", "carrier", "--net", "none", "--memory", f"{3 * size + 512}M"]
    subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    rm = [str(build.command), "rm", "-f", "carrier"]
    stack.callback(subprocess.run, rm, env=environment, check=False, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    def way(name: str, *line: str, given: str = os.devnull) -> Way:
        return Way(build.row(name), _carried([str(build.command), *line], environment, Path(given), size))

    copies = [way(INTO, "cp", str(file), "carrier:/tmp/data"), way(OUT, "cp", "carrier:/tmp/data", str(back))]
    if build.name:
        return copies
    swallow = ("exec", "carrier", "--", "sh", "-c", "cat >/dev/null")
    return [*copies, way(INPUT, *swallow, given=str(file)), way(OUTPUT, "exec", "carrier", "--", "cat", "/tmp/data")]


def _carried(words: list[str], environment: Mapping[str, str], given: Path, size: int) -> Callable[[], Mapping[str, float]]:
    def run() -> Mapping[str, float]:
        before, began = _qemu(environment), time.perf_counter()
        with given.open("rb") as data:
            process = subprocess.Popen(words, env=environment, stdin=data, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            assert process.stderr is not None
            said = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = status
        taken = time.perf_counter() - began
        if status:
            raise RuntimeError(f"{' '.join(words)}: {said.decode()[-300:]}")
        spent = _qemu(environment) - before + usage.ru_utime + usage.ru_stime
        return {"": taken / size, PROCESSOR: spent / size}

    return run


def _qemu(environment: Mapping[str, str]) -> float:
    """Processor seconds of the machine's QEMU until now."""
    pid = json.loads((Path(environment["TINAMOU_STATE"]) / "machines/carrier/machine.json").read_text())["pid"]
    return computed(pid)
