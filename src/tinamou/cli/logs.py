"""The verb ``logs``: what the guest printed on its console, and what QEMU itself said."""

from __future__ import annotations

import io
import sys
import time
from typing import Annotated

from tinamou.cli.grammar import Parameter, Switch
from tinamou.facts import files
from tinamou.state import machines
from tinamou.system.logs import FULL, Followed, complete, kept
from tinamou.system.shown import visible

__all__ = ["command", "show_log"]


def command(
    name: str,
    /,
    *,
    qemu: Switch = False,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    tail: Annotated[int | None, Parameter(name=["--tail", "-n"], least=0)] = None,
) -> None:
    """Print a machine's log: the last 4 MiB of it, or a little more.

    On a terminal control characters are spelled out; a pipe or a file gets the log as it is.

    Parameters
    ----------
    qemu
        QEMU's own messages instead of the guest's console.
    follow
        Go on printing as the log grows, until the machine ends.
    tail
        Only so many lines from the end.
    """
    record = machines.find_usable(name)
    path = record.file(files.QEMU_LOG if qemu else files.SERIAL_LOG)
    growing = Followed(path, path.stat().st_size if path.exists() else 0)
    lines = io.BytesIO(kept(path)).readlines()
    show_log(b"".join(lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]))
    while follow:
        running = record.running
        if not running:
            complete(path)
        show_log(growing.more(FULL))
        if not running:
            return
        time.sleep(0.1)


def show_log(log: bytes) -> None:
    """Print what came of a log: on a terminal without its control characters."""
    if sys.stdout.isatty():
        sys.stdout.write(visible(log.decode(errors="replace").replace("\r\n", "\n")))
    else:
        sys.stdout.buffer.write(log)
    sys.stdout.flush()
