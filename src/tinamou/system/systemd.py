"""What a systemd unit needs in order to run this tinamou: its command, and the variables that say where it keeps things."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence

from tinamou.system.paths import this_host

__all__ = ["command", "environment", "exec_start", "variables"]


def command() -> list[str]:
    """How this tinamou is started."""
    return [sys.executable, "-m", "tinamou"]


def environment() -> dict[str, str]:
    """The variables that a unit must have too: where this host keeps things, and which QEMU was chosen."""
    chosen = {name: os.environ[name] for name in ("TINAMOU_QEMU",) if name in os.environ}
    return {**this_host().environment(), **chosen}


def variables(values: Mapping[str, str]) -> str:
    """The lines of a unit that set them (source: systemd.exec(5))."""
    return "".join(f"Environment={shlex.quote(f'{key}={value}')}\n" for key, value in values.items())


def exec_start(words: Sequence[str]) -> str:
    """The line of a unit that runs a command (source: systemd.service(5), *Command lines*)."""
    return f"ExecStart={shlex.join(words).replace('%', '%%')}\n"
