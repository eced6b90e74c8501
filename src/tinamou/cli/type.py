"""The verb ``type``: type a text to a machine."""

from __future__ import annotations

import sys
from typing import Annotated

from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.operations import screens


def command(name: str, text: Annotated[str, Parameter(allow_leading_hyphen=True)], /, *, enter: Switch = False) -> None:
    """Type a text on a machine's keyboard, one of the United States.

    Parameters
    ----------
    text
        What is typed; - for what comes on stdin.
    enter
        Press the enter key after it.
    """
    if text == "-":
        text = sys.stdin.read()
    run_until_done(screens.type_text(name, text + "\n" * enter))
