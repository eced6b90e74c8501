"""The verb ``edit``: a machine's description in an editor."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

from tinamou.cli import output
from tinamou.cli.altered import show
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import SpecError, TinamouError
from tinamou.operations import keeping
from tinamou.system.plain_file import read_given


def command(
    name: str,
    /,
    *,
    file: Annotated[str, Parameter(allow_leading_hyphen=True)] = "",
    dry_run: Annotated[bool, Parameter(name="--dry-run", negative="")] = False,
    json: Switch = False,
) -> None:
    """Edit what a machine is, as a machine file, by $VISUAL or $EDITOR.

    The file is checked as a whole before it is taken, and what changes in the plan is shown. One that is refused can be
    edited again, and is kept where it is not. An empty one changes nothing.

    Parameters
    ----------
    file
        Take this machine file, and open no editor; - reads it from stdin.
    dry_run
        Only show what would change.
    json
        What was changed as JSON.
    """
    if file:
        text = sys.stdin.read(keeping.MOST + 1) if file == "-" else _read(Path(file))
        source = "stdin" if file == "-" else file
        show(run_until_done(keeping.edit(name, text, dry_run=dry_run, source=source)), json=json, dry_run=dry_run)
        return
    before = keeping.machine_file(name)
    path = _begun(name, before)
    done = None
    while done is None:
        text = _edited(name, path, before)
        if text == before or not text.strip():
            path.unlink()
            output.say(f"{name} is as it was")
            return
        try:
            done = run_until_done(keeping.edit(name, text, before=before, dry_run=dry_run, source=str(path)))
        except TinamouError as error:
            if not _again(error):
                error.fix = _kept_in(name, path)
                raise
    path.unlink()
    show(done, json=json, dry_run=dry_run)


def _begun(name: str, text: str) -> Path:
    """A file of the user's own, which outlives this command where its text is refused."""
    descriptor, path = tempfile.mkstemp(prefix=f"tinamou-{name}-", suffix=".toml")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return Path(path)


def _edited(name: str, path: Path, before: str) -> str:
    """The text as the editor left it. Where that failed, a text that was changed is kept, and the error says where."""
    from tinamou.system.editor import edited

    try:
        edited(path)
        return _read(path)
    except TinamouError as error:
        left = read_given(path, keeping.MOST) if path.exists() else b""
        if left.strip() and left != before.encode():
            error.fix = _kept_in(name, path)
        else:
            path.unlink(missing_ok=True)
        raise


def _kept_in(name: str, path: Path) -> str:
    return f"the text is in {path}: tinamou edit {name} --file {path}"


def _again(error: TinamouError) -> bool:
    """Whether the user wants to put it right, who is asked where there is one."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    output.warn(str(error))
    print("edit it again? [Y/n] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("", "y", "yes")


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(keeping.MOST + 1)
    except OSError as error:
        raise SpecError(f"{path} cannot be read", why=error.strerror or str(error), fix="check the path") from error
    except ValueError as error:
        raise SpecError(f"{path} is no text", why=str(error), fix="write it in UTF-8") from error
