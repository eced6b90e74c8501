"""The verb ``ssh``: a shell or a command in the guest, with the machine's own key."""

from __future__ import annotations

import os

from tinamou.cli import after_dashes
from tinamou.errors import GuestError
from tinamou.machine import life


def command(name: str, /, *, user: str = "") -> None:
    """Open a shell in a machine by ssh, or run a command: tinamou ssh NAME -- COMMAND.

    Parameters
    ----------
    name
        The machine.
    user
        Log in as this user; the image's own when left out.
    """
    from tinamou.guest.ssh import ssh_argv, target

    record = life.running(name)
    if record.ssh_port is None:
        fix = f"tinamou exec {name} -- COMMAND works without network"
        raise GuestError(f"{name} cannot be reached by ssh", why=f"the image {record.image} runs no ssh server", fix=fix)
    words = ssh_argv(target(record.directory, user or record.ssh_user or "root", record.ssh_port), after_dashes.words or ())
    os.execv(words[0], words)  # noqa: S606  the terminal becomes ssh's
