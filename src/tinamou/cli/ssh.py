"""The verb ``ssh``: a shell or a command in the guest, with the machine's own key."""

from __future__ import annotations

import os

from tinamou.cli import after_dashes, output
from tinamou.cli.loop import leave_the_line, run_until_done
from tinamou.errors import GuestError
from tinamou.machine.connected import READY_SECONDS
from tinamou.state.allowed import of_others, refusal


def command(name: str, /, *, user: str = "", timeout: float = READY_SECONDS) -> None:
    """Open a shell in a machine by ssh, or run a command: tinamou ssh NAME -- COMMAND.

    Parameters
    ----------
    name
        The machine. One that is being started, or whose guest still boots, is waited for.
    user
        Log in as this user; the image's own when left out.
    timeout
        Seconds the machine's start and the guest's ssh server may take.
    """
    from tinamou.guest.ssh import ssh_argv, target, until_served
    from tinamou.machine.waiting import Waiting

    wait = Waiting(name, timeout, output.waits)
    record = run_until_done(wait.started(agent=False))
    if of_others(record):
        raise refusal(record)
    if record.ssh_port is None:
        fix = f"tinamou exec {name} -- COMMAND works without network"
        raise GuestError(f"{name} cannot be reached by ssh", why=f"the image {record.image} runs no ssh server", fix=fix)
    there = target(record.directory, user or record.ssh_user or "root", record.ssh_port)
    words = ssh_argv(there, after_dashes.words or ())
    until_served(there, wait.left, lambda: record.running, lambda: output.waits(f"waiting for the ssh server of {name}"))
    leave_the_line()
    os.execv(words[0], words)  # noqa: S606  the terminal becomes ssh's
