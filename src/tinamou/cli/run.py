"""The verb ``run``: from an image to a guest that answers, a console, or the exit status of one command."""

from __future__ import annotations

from typing import Annotated, Any

from tinamou.cli import after_dashes
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.options import MachineOptions, spec_from
from tinamou.cli.streams import Given


def command(
    image: str = "",
    *,
    options: Annotated[MachineOptions | None, Parameter(name="*", negative="")] = None,
    detach: Annotated[bool, Parameter(name=["--detach", "-d"], negative="")] = False,
    timeout: float = 300.0,
    time_limit: float | None = None,
    env: Annotated[tuple[str, ...], Parameter(name=["--env", "-e"], negative="")] = (),
    workdir: Annotated[str, Parameter(name=["--workdir", "-w"])] = "",
    user: Annotated[str, Parameter(name=["--user", "-u"])] = "",
    interactive: Annotated[bool, Parameter(name=["--interactive", "-i"], negative="")] = False,
    tty: Annotated[bool, Parameter(name=["--tty", "-t"], negative="")] = False,
    wait: Annotated[bool, Parameter(negative="--no-wait")] = True,
    timings: Switch = False,
    warm: Switch = False,
    json: Switch = False,
) -> int:
    """Start a machine: with its console here, in the background, or for one command.

    tinamou run -- uname -m        runs one command in a throw-away machine and ends with its exit status.
    tinamou run -it -- sh          a shell in a throw-away machine.
    tinamou run debian -d          starts a machine that stays; see ls, ssh, exec, stop, rm.
    tinamou run web.toml           starts the machine a file describes.

    Parameters
    ----------
    image
        A guest tinamou builds (tiny, debian), one of the catalogue, an image file, or a machine file ending in .toml.
    detach
        Leave the machine running in the background.
    timeout
        Seconds the guest may take to answer; with --detach one that takes longer is left running.
    time_limit
        Seconds the command may take; the machine is ended then, and the exit status is 124.
    env
        A variable of the command's environment, NAME=VALUE; NAME alone takes this host's value. May be repeated.
    workdir
        The folder the command begins in; the user's home when left out.
    user
        The user the command runs as, by name or number; root when left out.
    interactive
        Give the command what is typed here. Input that is no terminal is given to it in any case.
    tty
        Give the command a terminal, which is this one.
    wait
        Wait until the guest answers, where one is known to; --no-wait leaves a guest without an agent to itself.
    timings
        Print on stderr how long each stage took.
    warm
        Start a copy of a machine that was booted once for the same request: milliseconds from the second time on. It has
        a network only when --net or a file asks for one.
    json
        Print the machine as JSON (with --detach).
    """
    from tinamou.cli import running

    spec = spec_from(image, options, apart=warm)
    given = Given(env, workdir, user, interactive, tty)
    about: dict[str, Any] = {"detach": detach, "timings": timings, "wait": wait, "json": json}
    how = running.How(timeout, time_limit, given=given, **about)
    return running.run(spec, after_dashes.words, how, warm=warm)
