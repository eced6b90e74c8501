"""The command ``tinamou`` as a fork of the tests' process, in `typed.call`'s place: its functions are those there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from typing import IO, Any, NoReturn

import typed

import tinamou.cli.main
from tinamou.system import loop_thread

at_end: list[Callable[[], None]] = []
"""What is called where such a fork ends."""


def instead() -> None:
    """Have every `call` fork of tests that are loaded from now on."""

    def call(*words: str, input: str = "", timeout: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(input.encode())
            given.seek(0)
            if not (pid := os.fork()):
                _become(words, (given, out, err), environment)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(list(words), status, out.read().decode(), err.read().decode())

    typed.call = call


def _become(words: tuple[str, ...], streams: tuple[IO[bytes], ...], environment: dict[str, str]) -> NoReturn:
    """This process is the command, with streams and threads of its own, and ends as it does."""
    me, leave = os.getpid(), os._exit

    def ended(status: int) -> NoReturn:
        if os.getpid() == me:
            for one in at_end:
                one()
        leave(status)

    os._exit = ended
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream.fileno(), number)
        sys.stdin, sys.stdout, sys.stderr = (_opened(number) for number in range(3))
        sys.argv = ["tinamou", *words]
        os.environ.update(environment)
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
        loop_thread._loops.clear()
        loop_thread._lock = threading.Lock()
        tinamou.cli.main.main()
    finally:
        leave(1)


def _opened(number: int) -> Any:
    return open(number, "w" if number else "r", closefd=False)
