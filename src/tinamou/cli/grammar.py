"""How a verb's function says what may be written on the command line, before the parser's library is loaded.

A verb is a function: its parameters are the words and options, their annotations the kinds. What else is to be said of
one stands beside its type, ``Annotated[str, Parameter(name=["--out", "-o"])]``. The quick reader and the help read that
here, and `tinamou.cli.app` tells it the parser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

__all__ = ["Argument", "Force", "Group", "Parameter", "Switch", "Verb", "arguments"]

Verb = Callable[..., Any]
_KINDS = (str, int, float, bool, Path)


class Parameter:
    """What is said of one parameter; ``least`` is the smallest number it can be, the rest are the parser's own words."""

    def __init__(self, *, least: int | None = None, **said: Any) -> None:
        self.least = least
        self.said = said


Switch = Annotated[bool, Parameter(negative="")]
"""An option that is there or is not."""
Force = Annotated[bool, Parameter(name=["--force", "-f"], negative="")]
"""Such a one, by which a verb does what it refuses otherwise."""


class Group:
    """A verb with verbs of its own below it. ``default`` is what is done where none is named."""

    def __init__(self) -> None:
        self.default: Verb | None = None
        self.verbs: dict[str, Verb] = {}
        self.hidden: set[str] = set()

    def command(self, function: Verb) -> Verb:
        """The decorator for a verb with the name of its function."""
        self.verbs[function.__name__.replace("_", "-")] = function
        return function

    def named(self, name: str, *, show: bool = True) -> Callable[[Verb], Verb]:
        """The same with another name, or for one that help does not show."""

        def put(function: Verb) -> Verb:
            self.verbs[name] = function
            if not show:
                self.hidden.add(name)
            return function

        return put

    def alone(self, function: Verb) -> Verb:
        """The decorator for what is done where no verb is named."""
        self.default = function
        return function


class Argument:
    """One word or option of a verb. ``key`` is the parameter's name, ``kind`` the type of a value, None for one that only
    the parser reads; ``options`` are its spellings, ``off`` that which makes a switch false, ``within`` the parameter of
    whose class it is a field."""

    def __init__(self, key: str, hint: Any, *, place: Literal["word", "words", "option"], default: Any) -> None:
        said: list[Any] = []
        if get_origin(hint) is Annotated:
            hint, *said = get_args(hint)
        self.about: Parameter = next((one for one in said if isinstance(one, Parameter)), Parameter())
        if get_origin(hint) is UnionType:
            (hint,) = (one for one in get_args(hint) if one is not NoneType)
        self.repeated: bool = get_origin(hint) is tuple
        self.hint: Any = get_args(hint)[0] if self.repeated else hint
        self.key: str = key
        self.place = place
        self.default: Any = default
        self.choices: Sequence[str] = get_args(hint) if get_origin(hint) is Literal else ()
        self.kind: type | None = str if self.choices else self.hint if self.hint in _KINDS else None
        spelled = self.about.said.get("name", f"--{key.strip('_').replace('_', '-')}")
        self.options: list[str] = [spelled] if isinstance(spelled, str) else list(spelled)
        negative = self.about.said.get("negative", f"--no-{self.options[0][2:]}")
        self.off: str = negative if self.kind is bool and not self.repeated else ""
        self.within: Argument | None = None


def arguments(function: Verb) -> list[Argument]:
    """What a verb is given, words first. A parameter ``name="*"`` is a class whose fields are options themselves."""
    hints, code = get_type_hints(function, include_extras=True), function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4)]
    words, options = names[: code.co_argcount], names[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    fixed = len(words) - len(function.__defaults__ or ())
    defaults = {**dict(zip(words[fixed:], function.__defaults__ or (), strict=True)), **(function.__kwdefaults__ or {})}
    found = [Argument(key, hints[key], place="word", default=defaults.get(key, ...)) for key in words]
    found += [Argument(key, hints[key], place="words", default=()) for key in names[len(words) + len(options) :]]
    for key in options:
        one = Argument(key, hints[key], place="option", default=defaults.get(key, ...))
        found += _fields(one) if one.options == ["*"] else [one]
    return found


def _fields(whole: Argument) -> Iterator[Argument]:
    """The options of a class: each is a field with a default."""
    about = Parameter(negative=whole.about.said.get("negative", ""))
    for key, hint in get_type_hints(whole.hint).items():
        one = Argument(key, Annotated[hint, about], place="option", default=getattr(whole.hint, key))
        one.within = whole
        yield one
