"""The ``tinamou`` command: finds the verb, turns errors into messages and exit codes."""

from __future__ import annotations

import os
import signal
import sys

from cyclopts import App
from cyclopts.exceptions import CycloptsError

from tinamou import __version__
from tinamou.cli import after_dashes
from tinamou.errors import TinamouError

__all__ = ["app", "main"]

VERBS = {
    "run": "Start a machine: with its console here, in the background, or for one command.",
    "ls": "List machines.",
    "show": "Show one machine.",
    "logs": "Print what a guest said on its console, or QEMU.",
    "console": "Attach to a machine's console; Ctrl-] detaches.",
    "ssh": "Open a shell in a machine, or run a command, by ssh.",
    "exec": "Run a command in a machine.",
    "cp": "Copy files and folders into and out of a machine.",
    "start": "Start a stopped machine again.",
    "stop": "Shut a machine down.",
    "kill": "Cut a machine's power.",
    "reset": "Press a machine's reset button.",
    "pause": "Freeze a machine.",
    "resume": "Let a frozen machine run on.",
    "rm": "Remove machines and their disks.",
    "checkpoint": "Save the whole state of a running machine, which goes on.",
    "checkpoints": "List, show, restore and remove checkpoints.",
    "fork": "Start running copies of a running machine, or of a checkpoint.",
    "plan": "Show what would be done, and why.",
    "accel": "Try every accelerator and report.",
    "image": "Build, download, examine and remove images.",
    "snapshot": "Take snapshots of a machine's disks and go back to them.",
    "disk": "Change a machine's disks, while it runs where that can be.",
    "check": "Check a machine's disks.",
    "backup": "Copy machines to a folder, and prove the copies.",
    "doctor": "Examine this host, or a machine on it.",
    "host": "Show what machines took from the host, and give it back.",
    "schema": "Print the JSON Schema of machine files.",
}
"""Verb → one line of help; its module below tinamou.cli has a function ``command`` or, for a group, an App ``app``."""

GROUPS = frozenset({"backup", "checkpoints", "disk", "host", "image", "snapshot"})

app: App = App(
    name="tinamou",
    version=__version__,
    help="Starts QEMU virtual machines the right way and keeps them right.",
    result_action="return_value",
)
for _verb, _help in VERBS.items():
    app.command(f"tinamou.cli.{_verb}:{'app' if _verb in GROUPS else 'command'}", name=_verb, help=_help)


def main() -> None:
    """Run the command line and end the process with the documented exit code (docs/reference/exit-codes.md)."""
    words, after_dashes.words = after_dashes.split(sys.argv[1:])
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
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


def _end(number: int, _: object) -> None:
    """A request to end is heeded like Ctrl-C: what was begun is given back."""
    sys.exit(128 + number)


def _report(error: TinamouError) -> int:
    """The error on stderr, and as JSON on stdout for who asked for JSON."""
    print(f"tinamou: {error}", file=sys.stderr)
    if "--json" in sys.argv:
        import json

        print(json.dumps(error.to_json()))
    return error.code


if __name__ == "__main__":
    main()
