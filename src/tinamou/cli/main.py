"""The ``tinamou`` command: finds the verb, turns errors into messages and exit codes."""

from __future__ import annotations

import os
import sys

from cyclopts import App
from cyclopts.exceptions import CycloptsError

from tinamou import __version__
from tinamou.cli import after_dashes
from tinamou.errors import TinamouError

__all__ = ["app", "main"]

VERBS = {
    "run": "run",
    "ls": "ls",
    "show": "show",
    "logs": "logs",
    "console": "console",
    "ssh": "ssh",
    "exec": "exec",
    "cp": "cp",
    "start": "start",
    "stop": "stop",
    "kill": "kill",
    "reset": "reset",
    "pause": "pause",
    "resume": "resume",
    "rm": "rm",
    "plan": "plan",
    "accel": "accel",
    "image": "image",
    "snapshot": "snapshot",
    "check": "check",
    "doctor": "doctor",
    "host": "host",
    "schema": "schema",
}
"""Verb → module below tinamou.cli; the module has a function ``command`` or an App ``app``."""

GROUPS = frozenset({"host", "image", "snapshot"})

app: App = App(
    name="tinamou",
    version=__version__,
    help="Starts QEMU virtual machines the right way and keeps them right.",
    result_action="return_value",
)
for _verb, _module in VERBS.items():
    app.command(f"tinamou.cli.{_module}:{'app' if _verb in GROUPS else 'command'}", name=_verb)


def main() -> None:
    """Run the command line and end the process with the documented exit code (docs/reference/exit-codes.md)."""
    words, after_dashes.words = after_dashes.split(sys.argv[1:])
    try:
        status = app(words, exit_on_error=False, print_error=True)
    except CycloptsError:
        status = 2
    except TinamouError as error:
        status = _report(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 141
    sys.exit(status if isinstance(status, int) else 0)


def _report(error: TinamouError) -> int:
    """The error on stderr, and as JSON on stdout for who asked for JSON."""
    print(f"tinamou: {error}", file=sys.stderr)
    if "--json" in sys.argv:
        import json

        print(json.dumps(error.to_json()))
    return error.code


if __name__ == "__main__":
    main()
