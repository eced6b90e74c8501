"""The verb ``logs``: what the guest printed on its console, and what QEMU itself said."""

from __future__ import annotations

import sys
import time
from typing import Annotated

from cyclopts import Parameter

from tinamou.state import machines


def command(
    name: str,
    *,
    qemu: Annotated[bool, Parameter(negative="")] = False,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
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
    """
    record = machines.find(name)
    path = record.file("qemu.log" if qemu else "serial.log")
    with path.open("rb") as log:
        while True:
            sys.stdout.buffer.write(log.read())
            sys.stdout.buffer.flush()
            if not follow or not record.running:
                return
            time.sleep(0.1)
