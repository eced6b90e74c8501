"""``tinamou run`` at a terminal: the console from the first message on, and a terminal that is as it was in the end."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest
from typed import TINAMOU

pytestmark = pytest.mark.vm


@contextlib.contextmanager
def at_a_terminal(*words: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The command in a terminal of its own, whose other side is given; the terminal must be as before in the end."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen([*TINAMOU, *words], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    try:
        yield ours, process
        assert termios.tcgetattr(theirs) == before
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def read_until(terminal: int, wanted: bytes, seconds: float = 120) -> bytes:
    got, end = b"", time.monotonic() + seconds
    while not re.search(wanted, got) and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            got += os.read(terminal, 65536)
    assert re.search(wanted, got), got
    return got


def test_the_whole_boot_is_seen_and_the_shell_ends_it(leftovers):
    with at_a_terminal("run", "--cmdline", "ignore_loglevel") as (terminal, process):
        prompt = rb":(/root|~)# "  # as the shell of Debian 12 or 13 has it
        told = read_until(terminal, prompt)
        places = [
            found.start()
            for said in (b"attached to the console", b"Linux version", prompt)
            if (found := re.search(said, told))
        ]
        assert len(places) == 3
        assert places == sorted(places)
        os.write(terminal, b"exit\n")
        read_until(terminal, b"the machine has ended")
        assert process.wait(timeout=120) == 0
    assert leftovers.found() == []


def test_the_key_detaches_before_the_guest_answers(leftovers):
    with at_a_terminal("run", "--cmdline", "rdinit=/bin/sh") as (terminal, process):
        read_until(terminal, b"attached to the console")
        os.write(terminal, b"\x1d")
        read_until(terminal, b"detached")
        assert process.wait(timeout=120) == 0
    assert leftovers.found() == []


def test_a_panic_ends_the_console_with_the_reason(leftovers):
    with at_a_terminal("run", "--cmdline", "rdinit=/bin/false panic=-1") as (terminal, process):
        read_until(terminal, b"The guest does not answer")
        assert process.wait(timeout=120) == 116
    assert leftovers.found() == []
