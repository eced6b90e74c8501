"""The verb ``run``: from an image to a guest that answers, a console, or the exit status of one command."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from tinamou.cli import after_dashes, running
from tinamou.cli.options import MachineOptions, spec_from


def command(
    image: str = "",
    *,
    options: Annotated[MachineOptions | None, Parameter(name="*", negative="")] = None,
    detach: Annotated[bool, Parameter(name=["--detach", "-d"], negative="")] = False,
    timeout: float = 300.0,
    time_limit: float | None = None,
    wait: Annotated[bool, Parameter(negative="--no-wait")] = True,
    timings: Annotated[bool, Parameter(negative="")] = False,
    warm: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Start a machine: with its console here, in the background, or for one command.

    tinamou run -- uname -m        runs one command in a throw-away machine and ends with its exit status.
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
    wait
        Wait until the guest answers, where one is known to; --no-wait leaves a guest without an agent to itself.
    timings
        Print on stderr how long each stage took.
    warm
        Start a copy of a machine that was booted once for the same wish: milliseconds from the second time on. It has
        a network only when --net or a file asks for one.
    json
        Print the machine as JSON (with --detach).
    """
    spec = spec_from(image, options, apart=warm)
    how = running.How(timeout=timeout, time_limit=time_limit, detach=detach, timings=timings, wait=wait, json=json)
    return running.run(spec, after_dashes.words, how, warm=warm)
