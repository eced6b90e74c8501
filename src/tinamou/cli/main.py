"""The ``tinamou`` command: finds the verb, turns errors into messages and exit codes."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from collections.abc import Sequence

from tinamou.cli import after_dashes, meant
from tinamou.cli.loop import heed_requests, heed_the_line, heeded
from tinamou.errors import TinamouError
from tinamou.system import seldom, shown
from tinamou.version import __version__

__all__ = ["main"]

_OFTEN = 50_000
"""Objects made before garbage is looked for: of what most commands make, nothing is."""


def main() -> None:
    """Run the command line and end the process with the documented exit code (docs/reference/exit-codes.md)."""
    gc.disable()  # until the modules are there: looking for garbage while they are imported finds none
    try:
        try:
            heed_requests()
            if "TINAMOU_ATTENDED" in os.environ:
                heed_the_line()
            words, after_dashes.words = after_dashes.split(sys.argv[1:])
            words = meant.spelled(words)
            shown.guard()
            status = _status(words)
        finally:
            heeded()
    except KeyboardInterrupt:
        heeded()
        shown.say_last("interrupted")
        status = 130
    except SystemExit as request:
        heeded()
        status = _ended(request)
    _leave(status)


def _status(words: Sequence[str]) -> int:
    """Do what the line asks for; what goes wrong is said."""
    try:
        return _done(words)
    except TinamouError as error:
        return _report(error, words)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:
        return _report(_of_the_system(error), words)


def _ended(request: SystemExit) -> int:
    """The exit status of a command that was asked to end, which it says, or that ends by itself with a status of its own."""
    status = request.code if isinstance(request.code, int) else 0 if request.code is None else 1
    if status in (128 + signal.SIGTERM, 128 + signal.SIGHUP):
        shown.say_last(f"ended by {signal.Signals(status - 128).name}")
    return status


def _of_the_system(error: OSError) -> TinamouError:
    """What the system refused, and at what."""
    at = f": {error.filename}" if error.filename else ""
    fix = "free some space" if error.errno == errno.ENOSPC else ""
    return TinamouError(f"{error.strerror or error}{at}", fix=fix)


def _done(words: Sequence[str]) -> int:
    """Do what the line says, read in the quickest way there is for it; the exit status."""
    if words == ["--version"]:
        print(__version__)
        return 0
    if words[:1] == ["-H"]:
        from tinamou.cli import elsewhere

        return elsewhere.run(words[1:])
    if not words or {"--help", "-h"} & set(words):
        from tinamou.cli.help import show

        return show(words)
    seldom.load_pathlib()
    seldom.lean_asyncio()
    from tinamou.cli import quick

    asked = quick.read(words)
    if words[0] != "run" or asked is None:  # a run turns it on when QEMU has been started
        gc.freeze()
        gc.set_threshold(_OFTEN)
        gc.enable()
    status = _parsed(words) if asked is None else asked.run()
    return status if isinstance(status, int) else 0


def _parsed(words: Sequence[str]) -> object:
    from cyclopts.exceptions import CycloptsError, UnusedCliTokensError

    from tinamou.cli.app import app
    from tinamou.cli.verbs import VERBS

    if words and not words[0].startswith("-") and words[0] not in VERBS:
        return _not_understood(meant.verb(words[0], VERBS))
    try:
        return app(words, exit_on_error=False, print_error=False)
    except UnusedCliTokensError as error:
        if why := meant.option(words):
            return _not_understood(why)
        if words[0] in ("run", "exec", "ssh") or words[:2] == ["pool", "run"]:
            return _not_understood(meant.dashes(words, (error.unused_tokens or [""])[0]))
        return _not_understood(str(error))
    except CycloptsError as error:
        why = meant.option(words) if words else ""
        return _not_understood(why or (f"{error} See: tinamou {words[0]} --help" if words else str(error)))


def _not_understood(text: str) -> int:
    """The exit status for a line that means nothing here."""
    print(f"tinamou: {text}", file=sys.stderr)
    return 2


def _leave(status: int) -> None:
    """End at once: everything has been given back by now, and taking the interpreter apart would take longer than that."""
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            if not stream.closed:  # by what spoke on it
                stream.flush()
    except BrokenPipeError:
        status = status or 141
    except OSError as error:
        status = status or _report(_of_the_system(error), ())
    os._exit(status)


def _report(error: TinamouError, words: Sequence[str]) -> int:
    """The error on stderr, and as JSON on stdout for who asked tinamou for JSON: ``words`` end before a guest's command."""
    print(f"tinamou: {error}\n", end="", file=sys.stderr)  # at once: a request to end comes before it or after
    if "--json" in words:
        import json

        print(json.dumps(error.to_json()))
    return error.code


if __name__ == "__main__":
    main()
