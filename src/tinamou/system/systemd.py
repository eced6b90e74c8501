"""What a systemd unit needs in order to run this tinamou: its command, and the variables that say where it keeps things."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence

__all__ = ["command", "environment", "exec_start", "variables"]

_KNOWN = ("TINAMOU_STATE", "TINAMOU_CACHE", "TINAMOU_RUN", "TINAMOU_QEMU")


def command() -> list[str]:
    """How this tinamou is started."""
    return [sys.executable, "-m", "tinamou"]


def environment() -> dict[str, str]:
    """The variables that are set here and that a unit must have too."""
    return {name: os.environ[name] for name in _KNOWN if name in os.environ}


def variables(values: Mapping[str, str]) -> str:
    """The lines of a unit that set them (source: systemd.exec(5))."""
    return "".join(f"Environment={shlex.quote(f'{key}={value}')}\n" for key, value in values.items())


def exec_start(words: Sequence[str]) -> str:
    """The line of a unit that runs a command (source: systemd.service(5), *Command lines*)."""
    return f"ExecStart={shlex.join(words).replace('%', '%%')}\n"
