"""The user's editor, on a file of its own at the terminal this process has."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from tinamou.errors import StateError
from tinamou.system.exec import find_tool

__all__ = ["edited"]


def edited(path: Path) -> None:
    """Have the user edit a file by ``$VISUAL``, ``$EDITOR``, or what Debian calls ``editor``; returns when it has ended.

    Raises StateError where there is no editor, or it ended with another status than 0.
    """
    asked = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "editor"
    try:
        words = shlex.split(asked)
    except ValueError as error:
        raise StateError(f"the editor {asked!r} cannot be called", why=str(error), fix="set EDITOR anew") from error
    if not words or find_tool(words[0]) is None:
        asked = words[0] if words else "an empty EDITOR"
        raise StateError(f"there is no editor {asked}", fix="set EDITOR, or give the text by --file")
    done = subprocess.run([*words, str(path)], check=False)
    if done.returncode:
        raise StateError(f"{words[0]} ended with status {done.returncode}", fix="nothing was changed")
