"""Reading back what a snapshot holds of the numbered blocks that bench/writer.c writes."""

from __future__ import annotations

import subprocess
import tempfile
from array import array
from dataclasses import dataclass, field
from pathlib import Path

BLOCK, BLOCKS = 4096, 1024


@dataclass
class States:
    """How many snapshots hold exactly what had been flushed, and what was wrong with the others."""

    exact: int = 0
    wrong: list[str] = field(default_factory=list)


def moment(path: Path) -> int:
    """The number up to which a disk was written when its snapshot was taken; -1 when it is no moment that ever was."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        argv = ["qemu-img", "dd", "-U", "-f", path.suffix[1:], "-O", "raw", f"if={path}", f"of={raw}"]
        subprocess.run([*argv, "bs=1M", f"count={BLOCK * BLOCKS >> 20}"], check=True, capture_output=True)
        words = array("Q", raw.read_bytes())
    per_block = BLOCK // 8
    numbers = [words[index * per_block] for index in range(BLOCKS)]
    torn = any(len(set(words[index * per_block : (index + 1) * per_block])) > 1 for index in range(BLOCKS))
    last = max(numbers)
    expected = [0] * BLOCKS
    for number in range(max(1, last - BLOCKS + 1), last + 1):
        expected[number % BLOCKS] = number
    return last if numbers == expected and not torn else -1
