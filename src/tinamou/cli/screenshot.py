"""The verb ``screenshot``: what a machine's screen shows, in a file, on the terminal, or as text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tinamou.cli import output
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import Problem, SpecError
from tinamou.system import terminal
from tinamou.system.shown import unguarded

if TYPE_CHECKING:
    from tinamou.screen.picture import Picture

_CELL = (8, 16)
"""Pixels of a character of a terminal that does not say."""


def command(
    name: str,
    file: Annotated[str, Parameter(allow_leading_hyphen=True)] = "",
    /,
    *,
    draw: Literal["auto", "blocks", "sixel"] = "auto",
    text: Switch = False,
    json: Switch = False,
) -> None:
    """Show what a machine's screen shows: in a PNG file, or here.

    Parameters
    ----------
    file
        The PNG file to write; - for stdout. When left out, it is drawn on the terminal; no terminal gets the file.
    draw
        How it is drawn on a terminal: with half blocks, or with sixels where the terminal says that it can.
    text
        Print the text on it instead, where it is a screen of the firmware's characters.
    """
    from tinamou.operations import screens

    _refuse(file, draw, text=text, json=json)
    taken = run_until_done(screens.screenshot(name, text=text))
    picture = taken.picture
    if file and file != "-":
        Path(file).write_bytes(picture.png())
    if json:
        lines = list(taken.text) if text else None
        output.print_json({"width": picture.width, "height": picture.height, "file": file or None, "text": lines})
    elif text:
        print("\n".join(taken.text))
    elif file == "-" or (not file and not sys.stdout.isatty()):
        sys.stdout.buffer.write(picture.png())
    elif not file:
        unguarded(sys.stdout).write(_drawn(picture, draw))


def _refuse(file: str, draw: str, *, text: bool, json: bool) -> None:
    """Raises SpecError for what does not go together."""
    problems = []
    suffix = Path(file).suffix.lower()
    if file.startswith("-") and file != "-":
        problems.append(Problem("file", file, "is no option of this verb", "a file of that name: ./" + file))
    if suffix not in ("", ".png"):
        problems.append(Problem("file", file, f"the picture is a PNG file, not {suffix[1:]}", "name it .png"))
    if draw != "auto" and (file or text or json):
        problems.append(Problem("--draw", draw, "nothing is drawn here", "leave one out"))
    if file == "-" and (text or json):
        problems.append(Problem("file", "-", "stdout has the text", "name a file, or leave it out"))
    if problems:
        raise SpecError("the screen cannot be shown so", problems=problems)


def _drawn(picture: Picture, draw: str) -> str:
    from tinamou.screen.picture import blocks, sixel

    columns, rows = terminal.window(sys.stdout.fileno()) or (80, 24)
    if draw == "sixel" or (draw == "auto" and terminal.draws_sixels()):
        return sixel(picture, columns * _CELL[0], (rows - 1) * _CELL[1])
    return blocks(picture, columns, rows - 1)
