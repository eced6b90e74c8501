"""The verb ``completion``: what a shell reads to complete tinamou's verbs and options."""

from __future__ import annotations

from typing import Literal


def command(shell: Literal["bash", "zsh", "fish", "powershell"], /) -> None:
    """Print a shell's completion script; docs/guides/install.md says where it belongs.

    Parameters
    ----------
    shell
        The shell: bash, zsh, fish or powershell.
    """
    from tinamou.cli.app import app

    print(app.generate_completion(shell=shell))
