"""Two hosts for tests of moves: this state directory and another one, and a real ssh between them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typed import call, eventually, tinamou

from tinamou.state.record import Record, read

WRITES = (
    "(i=0; while :; do i=$((i+1)); echo $i | dd of=/dev/vda bs=512 seek=8 conv=fsync 2>/dev/null || exit; "
    "echo $i > /tmp/part; mv /tmp/part /tmp/synced; done) >/dev/null 2>&1 & "
    "until [ -e /tmp/synced ]; do usleep 10000; done"
)
"""What is synced is a number on the disk, and then the same in memory."""
BOTH = "cut -d. -f1 /proc/uptime; cat /tmp/synced; dd if=/dev/vda bs=512 skip=8 count=1 2>/dev/null | head -1"


class Two:
    """This host, and another one: each with machines of its own."""

    def __init__(self, there: Path) -> None:
        self.there = there
        self.places = {"TINAMOU_STATE": str(there), "TINAMOU_RUN": str(there)}

    def here(self) -> Record | None:
        """The machine's record on this host."""
        return read(Path(os.environ["TINAMOU_STATE"], "machines/web"))

    def away(self) -> Record | None:
        """The one on the other host."""
        return read(self.there / "machines/web")

    def say(self, *words: str) -> str:
        """What tinamou prints on the other host."""
        done = call(*words, **self.places)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def seen(self, *, away: bool) -> list[int]:
        """The guest's uptime, the number it last synced as its memory has it, and as its disk has it."""
        words = ("exec", "web", "--", "sh", "-c", BOTH)
        return [int(line) for line in (self.say(*words) if away else tinamou(*words)).split()]

    def goes_on(self, before: list[int], *, away: bool) -> None:
        """Its guest goes on where it was, and lost nothing."""
        uptime, memory, disk = self.seen(away=away)
        assert uptime >= before[0]
        assert disk >= memory >= before[1]
        eventually(lambda: self.seen(away=away)[1] > memory, "another write")

    def notes(self, moved: Mapping[str, Any]) -> list[str]:
        """What that move told beside this: that an emulated guest of a QEMU before 10.0 stood still, and no other did."""
        record = self.here()
        assert record is not None
        said = subprocess.run([record.binary, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"version (\d+)", said)
        assert found is not None
        emulated = json.loads(self.say("show", "web", "--json"))["accel"] == "tcg"
        still = [note for note in moved["notes"] if note.startswith("its guest stood still while its memory went")]
        assert len(still) == (emulated and int(found[1]) < 10)
        return [note for note in moved["notes"] if note not in still]


def started(two: Two, *more: str) -> list[int]:
    """A machine that runs here and writes."""
    disk = 'disk=[{size="16M"}]'
    tinamou("run", "-d", "--name", "web", "--memory", "192M", "--net", "none", "--set", disk, *more)
    tinamou("exec", "web", "--", "sh", "-c", WRITES)
    return two.seen(away=False)
