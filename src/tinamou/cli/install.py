"""The verb ``install``: a guest installed from a disc."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tinamou.cli import output
from tinamou.cli.grammar import Parameter
from tinamou.cli.loop import run_until_done
from tinamou.cli.options import MachineOptions, spec_from

INSTALL_SECONDS = 7200.0


def command(
    iso: str,
    /,
    *,
    options: Annotated[MachineOptions | None, Parameter(name="*", negative="")] = None,
    answers: Path | None = None,
    until: str = "",
    timeout: float = INSTALL_SECONDS,
) -> None:
    """Install a guest from a disc: tinamou install debian.iso --name web --disk size=40G --answers preseed.cfg

    Parameters
    ----------
    iso
        The installer's disc, an ISO file.
    answers
        A file that answers the installer, so that nobody is asked: preseed, kickstart, autoinstall, autounattend,
        Ignition, or Combustion.
    until
        Words on the console or the screen by which the installed guest is known; without them its agent has to answer.
    timeout
        Seconds the installer may take, and then what it installed until it answers.
    """
    from tinamou.operations.installing import install

    spec = spec_from(iso, options)
    done = run_until_done(install(spec, answers=answers, until=until, timeout=timeout, progress=output.progress))
    output.say(f"what was installed answers: {done.by}")
    print(done.record.name)
