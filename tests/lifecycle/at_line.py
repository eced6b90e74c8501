"""Does lines of tinamou, each in a process of its own, and interrupts one at the N-th line of the package it executes.

Reads one request a line on stdin, JSON: ``words``; ``at``, the line (0: none); ``count``, whether lines are counted though
none is asked for (it is slower so); ``signal``, its name; ``after``, the seconds after which the signal is sent in any case;
``out`` and ``err``, the files it writes to; ``env``, variables of its own. Lines and seconds count from where the command
heeds requests to end. Answers each with a line of JSON: ``status``, ``lines``, ``where`` it was interrupted, ``seconds``,
``late`` (it went on for ``PATIENCE`` after the signal; where it stood then is in ``err``). One that has ``warm``, too, a
file for names, loads every module that the words needed, so that the next ones begin at their work.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import json
import mmap
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import tinamou.cli.main

PACKAGE = str(Path(tinamou.cli.main.__file__).parents[1])
PATIENCE = 60.0
"""So many seconds after it was asked to end, a command has ended, on the busiest host; else it says where it stands."""


class Lines:
    """Counts the lines of functions of the package, in every thread; at one of them the process is sent a signal."""

    def __init__(self, number: int) -> None:
        self.seen, self.at, self.number = 0, 0, number
        self.where = ""

    def frame(self, frame: FrameType, event: str, _: object) -> Callable[[FrameType, str, object], object] | None:
        if self.at and self.seen >= self.at:
            return None  # what comes after the moment goes at its own speed
        code = frame.f_code
        ours = event == "call" and code.co_filename.startswith(PACKAGE) and code.co_name != "<module>"
        return self.line if ours else None

    def line(self, frame: FrameType, event: str, _: object) -> Callable[[FrameType, str, object], object] | None:
        if event == "line":
            self.seen += 1
            if self.seen == self.at:
                self.where = placed(frame)
                os.kill(os.getpid(), self.number)
            if self.at and self.seen >= self.at:
                return None
        return self.line


def placed(frame: FrameType | None) -> str:
    """The line, and from where it was reached, innermost first."""
    found = []
    while frame is not None and len(found) < 12:
        if frame.f_code.co_filename.startswith(PACKAGE):
            found.append(f"{frame.f_code.co_filename[len(PACKAGE) + 1 :]}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(found)


def command(asked: dict[str, Any], count: mmap.mmap) -> None:
    """This process becomes the command; how many lines it was, and in ``warm`` which modules, is told at its end."""
    os.setsid()
    for number, path in enumerate(("/dev/null", asked["out"], asked["err"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(asked.get("env", {}))
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2)
    lines, me, leave = Lines(signal.Signals[asked.get("signal", "SIGINT")]), os.getpid(), os._exit
    sys.argv = ["tinamou", *asked["words"]]
    before, heed = set(sys.modules), tinamou.cli.main.heed_requests

    def heeding() -> None:
        heed()
        lines.seen, lines.at = 0, asked.get("at", 0)
        count[8] = 1

    def tell(status: int) -> None:
        if os.getpid() == me:
            sys.settrace(None)
            count[:8], count[9 : 9 + len(lines.where)] = lines.seen.to_bytes(8), lines.where.encode()
            if asked.get("warm"):
                Path(asked["warm"]).write_text(
                    "\n".join(name for name, one in sys.modules.items() if name not in before and one)
                )
        leave(status)

    os._exit = tell  # type: ignore[assignment]
    tinamou.cli.main.heed_requests = heeding  # type: ignore[attr-defined]
    if asked.get("at") or asked.get("count"):
        threading.settrace(lines.frame)
        sys.settrace(lines.frame)
    try:
        tinamou.cli.main.main()
    finally:
        os._exit(1)


def done(asked: dict[str, Any]) -> dict[str, Any]:
    """How the command ended that was asked for."""
    count = mmap.mmap(-1, 4096)
    begun = time.monotonic()
    if not (pid := os.fork()):
        command(asked, count)
    handle = os.pidfd_open(pid)
    while not count[8] and time.monotonic() < begun + PATIENCE and not select.select([handle], [], [], 0.0005)[0]:
        pass
    late = False
    first = (asked["after"], asked.get("signal", "SIGINT"))
    for seconds, number in (first, (PATIENCE, "SIGUSR2"), (PATIENCE, "SIGABRT"), (10.0, "SIGKILL")):
        if select.select([handle], [], [], seconds)[0]:
            break
        late = late or number == "SIGUSR2"
        signal.pidfd_send_signal(handle, signal.Signals[number])
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(handle)
    seconds = time.monotonic() - begun
    where = count[9:].rstrip(b"\0").decode()
    return {"status": status, "lines": int.from_bytes(count[:8]), "where": where, "seconds": seconds, "late": late}


def main() -> None:
    for request in sys.stdin:
        asked = json.loads(request)
        answer = done(asked)
        if asked.get("warm") and Path(asked["warm"]).exists():
            for name in Path(asked["warm"]).read_text().split():
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
            gc.freeze()  # forks share what is there
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
