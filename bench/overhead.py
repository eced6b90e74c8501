"""What tinamou itself costs: everything in a run that is neither QEMU nor guest, and planning."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.boot import SPEC, TINAMOU, Guest, by_hand, command_line, in_python, the_guest
from bench.framework import AtMost, Bar, Difference, Table, Way
from bench.guest_line import PROCESSOR
from tinamou.facts import Place
from tinamou.launch.argv import argv
from tinamou.machine.gather import gather, resolve_image
from tinamou.machine.planning import plan_only
from tinamou.planner import plan as make_plan
from tinamou.spec import load_spec
from tinamou.state import machines

__all__ = ["tables"]


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """A run with a guest of constant time, and planning."""
    return [_share(stack, the_guest(scratch)), _planning()]


# ── tinamou's own share ──


def _share(stack: ExitStack, guest: Guest) -> Table:
    """Everything that is not QEMU or guest: a run with a stand-in of constant time, less that stand-in started by hand."""
    standin = guest.scratch / "qemu-system-x86_64"
    text = Path(__file__).with_name("standin.py").read_text()
    standin.write_text(text.replace("@REAL@", guest.binary))
    standin.chmod(0o755)
    environment = {"TINAMOU_QEMU": str(standin)}
    plan = replace(guest.plan, binary=str(standin))

    def under(run: Callable[[], Mapping[str, float]]) -> Callable[[], Mapping[str, float]]:
        def patched() -> Mapping[str, float]:
            before = dict(os.environ)
            os.environ.update(environment)
            try:
                return run()
            finally:
                os.environ.clear()
                os.environ.update(before)

        return patched

    under(command_line)()
    alone = "the stand-in by hand"
    ways = [
        Way("command line", under(command_line)),
        Way("first in its process", under(in_python(stack, fresh=True))),
        Way("again", _again(stack, environment)),
        Way(alone, lambda: by_hand(replace(guest, plan=plan))),
    ]
    own = [
        Difference(f"own share: {name}", row, alone)
        for name, row in (
            ("command line → answer", "command line"),
            ("command line → exit", "command line: to its exit"),
            ("Machine() first in its process → answer", "first in its process"),
            ("Machine() again → answer", "again"),
            ("Machine() again → all gone", "again: to its end"),
        )
    ]
    own += [
        Difference(f"own processor time: {name}", f"{name}: {PROCESSOR}", f"{alone}: {PROCESSOR}")
        for name in ("command line", "first in its process", "again")
    ]
    bars: list[Bar] = [
        AtMost("own share: command line → exit", 0.150),
        AtMost("own share: Machine() again → answer", 0.030),
        AtMost("own share: Machine() first in its process → answer", 0.030),
    ]
    notes = ["The stand-in answers as QEMU and agent do, a second after its start; it stands where QEMU stands in a run."]
    return Table("tinamou's own share, with a guest of constant time", ways, alone, notes, (), own, bars)


def _again(stack: ExitStack, environment: Mapping[str, str]) -> Callable[[], Mapping[str, float]]:
    before = os.environ.get("TINAMOU_QEMU")
    os.environ.update(environment)
    try:
        return in_python(stack, fresh=False)
    finally:
        os.environ.pop("TINAMOU_QEMU")
        if before is not None:
            os.environ["TINAMOU_QEMU"] = before


# ── planning ──


def _planning() -> Table:
    spec = load_spec(SPEC)
    place = Place("bench", str(machines.machines_dir() / "bench"))
    facts = gather(spec, resolve_image(spec, build=False), place)

    def timed(work: Callable[[], object]) -> Callable[[], Mapping[str, float]]:
        def run() -> Mapping[str, float]:
            began = time.perf_counter()
            work()
            return {"": time.perf_counter() - began}

        return run

    def command() -> None:
        subprocess.run([TINAMOU, "plan"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    ways = [
        Way("plan: from facts, decided and spelled", timed(lambda: argv(make_plan(spec, facts)))),
        Way("plan: with image, host and QEMU looked at", timed(lambda: plan_only(spec, throwaway=True))),
        Way("tinamou plan", timed(command)),
    ]
    bars: list[Bar] = [AtMost(way.name, 0.010) for way in ways[:2]]
    return Table("planning", ways, "tinamou plan", bars=bars)
