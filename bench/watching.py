"""What `tinamou watch` costs over five hundred running machines, whose QEMUs are stand-ins: a share of a core, memory."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from bench.boot import the_guest
from bench.commands import both_builds
from bench.framework import AtMost, Bar, Table, Way
from bench.service import IDLE, computed, held, populated

__all__ = ["tables"]

SECONDS, SETTLED = 60.0, 30.0
"""How long it is looked at, and for how long it runs before."""
WATCH = "watch"


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """One table: a watch at its usual interval."""
    builds, _ = both_builds(the_guest(scratch), scratch)
    state = Path(builds[0].environment["TINAMOU_STATE"]).with_name("watched")
    populated(stack, builds[0], state, IDLE)
    environment = {**os.environ, **builds[0].environment, "TINAMOU_STATE": str(state)}
    said = (scratch / "watch.log").open("wb")

    def watch() -> Mapping[str, float]:
        process = subprocess.Popen([str(builds[0].command), "watch"], env=environment, stdout=said, stderr=said)
        try:
            time.sleep(SETTLED)
            before, began = computed(process.pid), time.monotonic()
            time.sleep(SECONDS)
            if process.poll() is not None:
                raise RuntimeError(f"it ended: {(scratch / 'watch.log').read_text()[-300:]}")
            share = (computed(process.pid) - before) / (time.monotonic() - began)
            return {"share of a core": share, "memory, MB": held(process.pid) / 1e9}
        finally:
            process.kill()
            process.wait()

    bars: list[Bar] = [AtMost(f"{WATCH}: share of a core", 0.01), AtMost(f"{WATCH}: memory, MB", 0.08)]
    notes = [f"{IDLE} machines run; a share of 10 ms is 1 %, 80 ms of memory are 80 MB."]
    return [Table(f"watch over {IDLE} machines", [Way(WATCH, watch)], WATCH, notes, bars=bars)]
