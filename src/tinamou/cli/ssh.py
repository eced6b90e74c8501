"""The verb ``ssh``: a shell or a command in the guest, with the machine's own key."""

from __future__ import annotations

import os

from tinamou.cli import after_dashes, output
from tinamou.cli.loop import leave_the_line
from tinamou.errors import GuestError
from tinamou.machine import life
from tinamou.machine.connected import READY_SECONDS


def command(name: str, /, *, user: str = "", timeout: float = READY_SECONDS) -> None:
    """Open a shell in a machine by ssh, or run a command: tinamou ssh NAME -- COMMAND.

    Parameters
    ----------
    name
        The machine.
    user
        Log in as this user; the image's own when left out.
    timeout
        Seconds the guest's ssh server may take to answer.
    """
    from tinamou.guest.ssh import ssh_argv, target, until_served

    record = life.running(name)
    if record.ssh_port is None:
        fix = f"tinamou exec {name} -- COMMAND works without network"
        raise GuestError(f"{name} cannot be reached by ssh", why=f"the image {record.image} runs no ssh server", fix=fix)
    there = target(record.directory, user or record.ssh_user or "root", record.ssh_port)
    words = ssh_argv(there, after_dashes.words or ())
    until_served(there, timeout, lambda: record.running, lambda: output.say(f"waiting for the ssh server of {name}"))
    leave_the_line()
    os.execv(words[0], words)  # noqa: S606  the terminal becomes ssh's
