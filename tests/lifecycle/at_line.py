"""Runs a line of tinamou that a signal interrupts at the N-th line of the package it executes.

usage: at_line.py N SIGNAL COUNT WORD…    N 0: no signal; how many lines there were is written to the file COUNT
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import tinamou.cli.main

PACKAGE = str(Path(tinamou.cli.main.__file__).parents[1])


class Lines:
    """Counts the lines of functions of the package, in every thread; at one of them the process is sent a signal."""

    def __init__(self, at: int, number: int) -> None:
        self.seen, self.at, self.number = 0, at, number

    def frame(self, frame: FrameType, event: str, _: object) -> Callable[[FrameType, str, object], object] | None:
        code = frame.f_code
        ours = event == "call" and code.co_filename.startswith(PACKAGE) and code.co_name != "<module>"
        return self.line if ours else None

    def line(self, frame: FrameType, event: str, _: object) -> Callable[[FrameType, str, object], object]:
        if event == "line":
            self.seen += 1
            if self.seen == self.at:
                os.kill(os.getpid(), self.number)
        return self.line


def main() -> None:
    lines = Lines(int(sys.argv[1]), signal.Signals[sys.argv[2]])
    count = Path(sys.argv[3])
    sys.argv = ["tinamou", *sys.argv[4:]]
    leave = os._exit

    def tell(status: int) -> None:
        if not lines.at:
            count.write_text(str(lines.seen))
        leave(status)

    os._exit = tell  # type: ignore[assignment]
    threading.settrace(lines.frame)
    sys.settrace(lines.frame)
    try:
        tinamou.cli.main.main()
    except SystemExit as end:
        sys.settrace(None)
        sys.stdout.flush()
        tell(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    main()
