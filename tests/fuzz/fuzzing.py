"""A fuzzer for readers: valid files are damaged in many ways, and each reader must end with an error of its own, soon.

A target is one function, in `fuzz_targets`::

    @target("qcow2 header", seeds=fuzz_seeds.qcow2_headers, errors=[Qcow2Error])
    def header(data: bytes) -> None:
        parse_header(data)

Longer than in the tests, or one target alone: ``python tests/fuzz/fuzzing.py [--seconds N] [--seed N] [TARGET…]``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from damage import LARGEST, damaged

MOST_SECONDS = 1.0
"""Of computing, for one call."""
MOST_GROWTH = 256 << 20
"""Bytes of addresses beyond what the reader takes for sound input."""
_SILENCE = 30.0
_TRIED = 3.0
"""Seconds of computing in that time: with fewer, a process that is not waiting was not let."""
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_KEPT = 400
_SHARED = 64 + LARGEST * 4

Read = Callable[[bytes], object]
TARGETS: dict[str, Target] = {}


@dataclass(frozen=True)
class Target:
    """One reader: what it is called with, which errors are its own, words of its language, how checksums are mended."""

    name: str
    read: Read
    seeds: Callable[[], Iterable[bytes]]
    errors: tuple[type[BaseException], ...] = ()
    words: tuple[str, ...] = ()
    mended: Callable[[bytes], bytes] | None = None
    values: re.Pattern[str] | None = None


@dataclass
class Result:
    """What came of one target: how many inputs, in how many different ways they ended, what must not have happened."""

    name: str
    inputs: int = 0
    endings: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """The sound files that were not read: what lies behind the refusal is seen by no damaged one of them either."""

    def __str__(self) -> str:
        return f"{self.name:<24}{self.inputs:>9} inputs {self.endings:>5} endings {self.seconds:>7.1f} s"


def target(
    name: str,
    *,
    seeds: Callable[[], Iterable[bytes]],
    errors: Sequence[type[BaseException]] = (),
    words: Iterable[str] = (),
    mended: Callable[[bytes], bytes] | None = None,
    values: str = "",
) -> Callable[[Read], Read]:
    """Make a target of a function; errors of `tinamou.errors` are allowed everywhere, ``errors`` here besides.

    ``words`` makes it one of texts; ``values`` says what of a text may be replaced without the rest losing its form.
    """

    def add(read: Read) -> Read:
        TARGETS[name] = Target(
            name, read, seeds, tuple(errors), tuple(words), mended, re.compile(values) if values else None
        )
        return read

    return add


# ── one target, in a process of its own ──


class _Slot:
    """Memory that the process shares with the one that watches it: how many calls began, and the input of the last."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _SHARED)

    def begin(self, number: int, data: bytes) -> None:
        self._memory[64 : 64 + len(data)] = data
        self._memory[:16] = number.to_bytes(8, "little") + len(data).to_bytes(8, "little")

    def last(self) -> tuple[int, bytes]:
        length = int.from_bytes(self._memory[8:16], "little")
        return int.from_bytes(self._memory[:8], "little"), self._memory[64 : 64 + length]


def inputs(one: Target, seed: int, learnt: list[bytes]) -> Iterator[bytes]:
    """The same inputs for the same seed: the sound files first, then damaged ones of them and of ``learnt``."""
    random = Random(f"{seed} {one.name}")
    pool = [bytes(data) for data in one.seeds()]
    yield from pool
    while True:
        source = random.choice(learnt) if learnt and random.random() < 0.5 else random.choice(pool)
        data = damaged(source, pool, one, random)
        yield one.mended(data) if one.mended and random.random() < 0.8 else data


def run_here(one: Target, seed: int, seconds: float, most: int, slot: _Slot) -> Result:
    """Read one input after another in this process, whose memory is limited once the sound ones are read."""
    from tinamou.errors import TinamouError

    result, learnt, known = Result(one.name), [], set()
    faults: dict[str, str] = {}
    seeds = list(one.seeds())
    sound, large = len(seeds), 2 * max(map(len, seeds)) + 2048
    began, allowed = time.process_time(), (TinamouError, *one.errors)
    for number, data in enumerate(inputs(one, seed, learnt)):
        if number == sound:
            _limit_memory()
        if number >= most:
            break
        if number % 8 == 0 and number > sound + 100 and time.process_time() - began > seconds:
            break
        slot.begin(number, data)
        ending, fault = _read(one, data, allowed)
        if number < sound and not ending.startswith("read"):
            result.refused.append(f"{one.name}, sound file {number}: {ending[:300]}")
        if fault and fault not in faults:
            faults[fault] = _kept(one.name, data)
        if hash(ending) not in known and len(data) < large:
            known.add(hash(ending))
            learnt.append(data)
            del learnt[: len(learnt) - _KEPT]
        result.inputs = number + 1
    result.endings, result.seconds = len(known), time.process_time() - began
    result.faults = [f"{one.name}: {fault}\n  input: {path}" for fault, path in faults.items()]
    return result


def _read(one: Target, data: bytes, allowed: tuple[type[BaseException], ...]) -> tuple[str, str]:
    """How the call ended, and what is wrong with that."""
    started = time.monotonic()
    try:
        found = one.read(data)
        ending = f"read {_plain(found)}" if isinstance(found, str) else "read"
    except allowed as error:
        try:
            ending = f"{type(error).__name__} {_shape(error)}"
        except Exception as other:
            return repr(type(error)), f"its message cannot be shown: {_told(other)}"
    except Exception as error:
        return repr(type(error)), _told(error)
    if time.monotonic() - started <= MOST_SECONDS:  # asked first: the other clock costs more than many a call
        return ending, ""
    spent = _computing(one, data)
    return ending, f"{spent:.1f} s of computing" if spent > MOST_SECONDS else ""


def _computing(one: Target, data: bytes) -> float:
    """Seconds of computing that the call takes, made again: the time that went by was another process's, maybe."""
    started = time.process_time()
    with contextlib.suppress(Exception):
        one.read(data)
    return time.process_time() - started


def _shape(error: BaseException) -> str:
    """The message without what differs from input to input."""
    if to_json := getattr(error, "to_json", None):
        json.dumps(to_json())
    return _plain(f"{error} {[(p.path, p.reason) for p in getattr(error, 'problems', ())]}")


def _plain(text: str) -> str:
    return re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{4,}\b|\d+|'[^']*'|\"[^\"]*\"|/\S+", "#", text[:20000])


def _told(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/tinamou/" in frame.filename] or frames[-1:]
    return f"{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}"


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_GROWTH, resource.RLIM_INFINITY))


def _kept(name: str, data: bytes) -> str:
    """The input in a file, for whoever looks into it."""
    with tempfile.NamedTemporaryFile(prefix=f"fuzz-{re.sub(r'[^a-z0-9]+', '-', name)}-", delete=False) as file:
        file.write(data)
    return file.name


# ── the process that watches ──


def _computed(pid: int) -> tuple[bool, float]:
    """Whether it would go on if it were let, and its seconds of computing (source: proc_pid_stat(5))."""
    from tinamou.system.proc import stat

    fields = stat(pid)
    assert fields, "a child stays until it is waited for"
    return fields[0] == "R", (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _not_let(pid: int, before: float) -> bool:
    """Whether a busy host is what keeps it from the end of a call."""
    runnable, now = _computed(pid)
    return runnable and now - before < _TRIED


def run(name: str, *, seconds: float, seed: int = 1, most: int = 1 << 62, module: str = "fuzz_targets") -> Result:
    """Fuzz one target for so many seconds of computing, in a process of its own that is ended when one call does not."""
    words = [sys.executable, __file__, "--child", name, "--seconds", str(seconds), "--seed", str(seed), "--most", str(most)]
    descriptor = os.memfd_create("slot")
    os.ftruncate(descriptor, _SHARED)
    slot = _Slot(descriptor)
    with tempfile.TemporaryFile() as said, tempfile.TemporaryDirectory(prefix="fuzz-", dir=_MEMORY) as folder:
        words += ["--module", module, "--slot", str(descriptor)]
        environment = {**os.environ, "TINAMOU_FUZZ_FOLDER": folder}
        child = subprocess.Popen(words, stdout=said, pass_fds=[descriptor], env=environment)
        os.close(descriptor)
        before, since, computed = -1, time.monotonic(), 0.0
        while child.poll() is None:
            time.sleep(0.05)
            number, data = slot.last()
            if number != before:
                before, since, computed = number, time.monotonic(), _computed(child.pid)[1]
            elif time.monotonic() - since > _SILENCE and not _not_let(child.pid, computed):
                child.kill()
                child.wait()
                return Result(name, number, 0, seconds, [f"{name}: one call does not end\n  input: {_kept(name, data)}"])
        said.seek(0)
        if child.returncode:
            fault = f"{name}: the process ended with status {child.returncode}\n  input: {_kept(name, slot.last()[1])}"
            return Result(name, before, 0, seconds, [fault])
        return Result(**json.loads(said.read()))


def names(module: str = "fuzz_targets") -> list[str]:
    """All targets of a module."""
    __import__(module)
    return list(sys.modules["fuzzing"].TARGETS)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="*")
    parser.add_argument("--seconds", type=float, default=10.0, help="of computing, for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=1 << 62, help="inputs for each target")
    parser.add_argument("--module", default="fuzz_targets", help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--slot", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    known = names(asked.module)
    if asked.child:
        one = sys.modules["fuzzing"].TARGETS[asked.child]
        print(json.dumps(vars(run_here(one, asked.seed, asked.seconds, asked.most, _Slot(asked.slot)))))
        return 0
    results = []
    for name in asked.target or known:
        results.append(run(name, seconds=asked.seconds, seed=asked.seed, most=asked.most))
        print(results[-1], *results[-1].faults, sep="\n", flush=True)
    print(sum(one.inputs for one in results), "inputs,", sum(len(one.faults) for one in results), "faults")
    return 1 if any(one.faults for one in results) else 0


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.path[:0] = [str(here), str(here.parent)]
    import fuzzing

    sys.exit(fuzzing._main())
