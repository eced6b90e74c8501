"""Help: what a verb is for, its words and its options, as wide as the terminal is."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tinamou.cli import meant
from tinamou.cli.verbs import ABOUT, GROUPS, USAGE, VERBS, function_of, module_of

if TYPE_CHECKING:
    from tinamou.cli.grammar import Argument, Verb

__all__ = ["show"]

_WIDEST = 120
_COLUMN = 28
"""Where what is said of an option begins, at most."""
Row = tuple[str, str]


def show(words: Sequence[str]) -> int:
    """Print the help that a line asks for, of the verb it begins with; the exit status."""
    named = [word for word in words if not word.startswith("-")]
    if not named:
        _print(["tinamou COMMAND"], ABOUT, {"Commands": list(VERBS.items())})
        return 0
    if named[0] not in VERBS:
        print(f"tinamou: {meant.verb(named[0], VERBS)}", file=sys.stderr)
        return 2
    below = module_of(named[0]).app if named[0] in GROUPS else None
    if below and not (len(named) > 1 and named[1] in below.verbs):
        rows = [(one, _first(function)) for one, function in sorted(below.verbs.items()) if one not in below.hidden]
        usage = [f"tinamou {named[0]} COMMAND"]
        _print(usage, VERBS[named[0]], {**(_rows(below.default) if below.default else {}), "Commands": rows})
    else:
        _verb(named[: 2 if below else 1])
    return 0


def _verb(named: Sequence[str]) -> None:
    found = function_of(named)
    if found is None:
        from tinamou.cli.app import completion

        found = completion, []
    verb, usage = found[0], USAGE.get(" ".join(named)) or _usage(found[0])
    about = re.split(r"\n *Parameters\n *-+\n", verb.__doc__ or "")[0]
    _print([f"tinamou {' '.join(named)} {usage}".rstrip()], textwrap.dedent(f"    {about}").strip(), _rows(verb))


def _first(verb: Verb) -> str:
    return " ".join((verb.__doc__ or "").partition("\n\n")[0].split())


def _usage(verb: Verb) -> str:
    from tinamou.cli.grammar import arguments

    known = arguments(verb)
    options = ["[OPTIONS]"] if any(one.place == "option" for one in known) else []
    return " ".join([*options, *(_written(one) for one in known if one.place != "option")])


def _written(one: Argument) -> str:
    name = one.key.upper()
    return f"[{name}…]" if one.place == "words" else name if one.default is ... else f"[{name}]"


def _rows(verb: Verb) -> dict[str, list[Row]]:
    """The tables of a verb: its words, its options."""
    from tinamou.cli.grammar import arguments

    said = _said(verb.__doc__)
    tables: dict[str, list[Row]] = {"Arguments": [], "Options": []}
    for one in arguments(verb):
        if one.about.said.get("show", True):
            if one.within and one.key not in said:
                said |= _said(one.within.hint.__doc__)
            text = " ".join(filter(None, (said.get(one.key) or _OFTEN.get(one.key, ""), _choices(one), _default(one))))
            table, spelled = ("Options", _spelled(one)) if one.place == "option" else ("Arguments", one.key.upper())
            tables[table].append((spelled, text))
    return tables


def _spelled(one: Argument) -> str:
    value = "" if one.kind is bool else (" " + ("TEXT" if one.choices else getattr(one.hint, "__name__", "").upper()))
    return " ".join(filter(None, (*one.options, one.off))) + value.replace("STR", "TEXT") + ("…" if one.repeated else "")


def _choices(one: Argument) -> str:
    return f"[{', '.join(one.choices)}]" if one.choices else ""


def _default(one: Argument) -> str:
    """A default that says something."""
    if one.default in (None, False, "", (), ...):
        return "[required]" if one.default is ... else ""
    value = f"{one.default:g}" if isinstance(one.default, float) else one.default
    return f"[default: {' '.join(value) if isinstance(value, tuple) else value}]"


_OFTEN = {"name": "The machine.", "host": "A host of `tinamou host ls`.", "nic": "The card: net1."}
"""What a verb's docstring need not say of a parameter of that name."""


def _said(doc: str | None) -> dict[str, str]:
    """Parameter → what its docstring says of it: a name, and what is indented below it."""
    below = re.split(r"\n *Parameters\n *-+\n", doc or "")[1:]
    found = re.findall(r"^ {4}(\w+)\n((?: {8}.*\n?)+)", below[0] if below else "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _print(usage: Sequence[str], about: str, tables: dict[str, list[Row]]) -> None:
    width = _width()
    print(*(f"Usage: {line}" for line in usage), "", *_paragraphs(about, width), sep="\n")
    rows = [row for table in tables.values() for row in table]
    column = min(_COLUMN, max((len(spelled) for spelled, _ in rows), default=0) + 4)
    for title, table in tables.items():
        if table:
            print("", f"{title}:", *(line for row in table for line in _lines(*row, column, width)), sep="\n")


def _width() -> int:
    try:
        return min(_WIDEST, int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns))
    except (OSError, ValueError):
        return 80


def _paragraphs(text: str, width: int) -> Iterator[str]:
    """Lines of the text; a paragraph that is set out in columns stays as it is."""
    for number, paragraph in enumerate(text.split("\n\n")):
        yield from [""] if number else []
        lines = [line.strip() for line in paragraph.splitlines()]
        yield from lines if any("   " in line for line in lines) else textwrap.wrap(" ".join(lines), width)


def _lines(spelled: str, text: str, column: int, width: int) -> Iterator[str]:
    first, *rest = textwrap.wrap(text, max(width - column, 20)) or [""]
    if len(spelled) + 4 > column:
        yield f"  {spelled}"
        yield f"{'':{column}}{first}"
    else:
        yield f"  {spelled:{column - 2}}{first}".rstrip()
    yield from (f"{'':{column}}{line}" for line in rest)
