"""The verb ``logs``: what the guest printed on its console, and what QEMU itself said."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Annotated

from cyclopts import Parameter, validators

from tinamou.state import machines


def command(
    name: str,
    /,
    *,
    qemu: Annotated[bool, Parameter(negative="")] = False,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    tail: Annotated[int | None, Parameter(name=["--tail", "-n"], validator=validators.Number(gte=0))] = None,
) -> None:
    """Print a machine's log.

    Parameters
    ----------
    name
        The machine.
    qemu
        QEMU's own messages instead of the guest's console.
    follow
        Go on printing as the log grows, until the machine ends.
    tail
        Only so many lines from the end.
    """
    record = machines.find(name)
    path = record.file("qemu.log" if qemu else "serial.log")
    if not path.exists():
        return
    with path.open("rb") as log:
        if tail is not None:
            sys.stdout.buffer.writelines(deque(log, tail))
        while True:
            sys.stdout.buffer.write(log.read())
            sys.stdout.buffer.flush()
            if not follow or not record.running:
                return
            time.sleep(0.1)
