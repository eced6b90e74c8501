"""A live snapshot, whole: beside the earlier build's, each by its own bench of snapshots, in turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from bench.boot import the_guest
from bench.commands import Build, both_builds
from bench.framework import Bar, Table, Way, Within

__all__ = ["tables"]

COUNT = 20
SNAPSHOTS = "snapshots of one disk"


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """One table; a round is a guest's life with so many snapshots."""
    builds, missing = both_builds(the_guest(scratch), scratch)
    ways = [Way(build.row(SNAPSHOTS), _taken(build, scratch)) for build in builds]
    bars: list[Bar] = [Within(f"{SNAPSHOTS}: whole", 0.5, f"{build.row(SNAPSHOTS)}: whole") for build in builds[1:]]
    notes = ["Medians of a round's snapshots; the guest writes and flushes, and every state is read back."]
    title = f"{COUNT} snapshots, beside an earlier build"
    return [Table(title, ways, builds[-1].row(SNAPSHOTS), notes, missing, bars=bars)]


def _taken(build: Build, scratch: Path) -> Callable[[], Mapping[str, float]]:
    paths = [str(build.paths[0].parent), *map(str, build.paths)]
    environment = {**os.environ, **build.environment, "PYTHONPATH": ":".join(paths)}
    out = scratch / f"snapshots-{build.name}.json"
    words = [sys.executable, "-m", "bench.snapshots", "--count", str(COUNT), "--disks", "1", "--only", "tinamou"]

    def run() -> Mapping[str, float]:
        subprocess.run([*words, "--json", str(out)], check=True, capture_output=True, env=environment, cwd=scratch)
        [said] = json.loads(out.read_text())
        if said["states"]["wrong"]:
            raise RuntimeError(f"a snapshot is no moment of the guest's: {said['states']['wrong'][0]}")
        return {name: said[name] / 1000 for name in ("whole", "transaction")}

    return run
