"""Reads plain lines without the parser's library, whose import takes longer than most commands.

What is not perfectly plain is left to the parser: it alone decides what is wrong. A test holds that both read the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinamou.cli.verbs import function_of

if TYPE_CHECKING:
    from tinamou.cli.grammar import Argument, Verb

__all__ = ["Asked", "read"]

_BEGINS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./~")


def _is_plain(text: str) -> bool:
    """Whether it is printable ASCII without blanks that begins as no option does."""
    return text[:1] in _BEGINS and text.isascii() and text.isprintable() and " " not in text


def _is_whole(text: str, longest: int) -> bool:
    return text.isdecimal() and len(text) <= longest


def _is_number(text: str, kind: type) -> bool:
    whole, point, part = text.partition(".")
    if kind is int:
        return _is_whole(text, 9) and (text == "0" or text[0] != "0")
    return _is_whole(whole, 6) and (not point or _is_whole(part, 3))


class Asked:
    """A line that was read: the verb's function and what it is called with."""

    def __init__(self, function: Verb, words: Sequence[object], options: dict[str, Any]) -> None:
        self.function = function
        self.words = words
        self.options = options

    def run(self) -> object:
        """Do it; returns what the function does, the exit status for most."""
        return self.function(*self.words, **self.options)


def read(words: Sequence[str]) -> Asked | None:
    """What ``words`` (those before ``--``) ask for; None where the parser has to look at them."""
    if (found := function_of(words)) is None:
        return None
    from tinamou.cli.grammar import arguments

    function, rest = found
    known = arguments(function)
    spelled = {option: (one, True) for one in known if one.place == "option" for option in one.options}
    spelled |= {one.off: (one, False) for one in known if one.place == "option" and one.off}
    given: dict[str, Any] = {}
    places: list[Argument] = [one for one in known if one.place != "option"]
    for option in (option for one in places for option in one.options):  # a word that can be an option, too
        spelled.pop(option, None)
    said: list[object] = []
    following = iter(rest)
    for word in following:
        if word.startswith("-"):
            one, value = spelled.get(word, (None, False))
            if one is None or not _put(given, one, value if one.kind is bool else _value(one, next(following, ""))):
                return None
        elif len(said) < len(places) or (places and places[-1].place == "words"):
            said.append(_value(places[min(len(said), len(places) - 1)], word))
        else:
            return None
    missing = (one.default is ... and one.key not in given for one in known if one not in places[: len(said)])
    if None in said or any(missing):
        return None
    return Asked(function, said, _called(known, given))


def _put(given: dict[str, Any], one: Argument, value: object) -> bool:
    """Note an option's value; whether it can be."""
    if value is None or (one.key in given and not one.repeated):
        return False
    given[one.key] = (*given.get(one.key, ()), value) if one.repeated else value
    return True


def _value(one: Argument, text: str) -> object | None:
    """The value that a plain word stands for, else None."""
    if one.kind is None or one.kind is bool or not _is_plain(text) or (one.choices and text not in one.choices):
        return None
    if one.kind in (int, float) and not _is_number(text, one.kind):
        return None
    value: object = one.kind(text)
    return None if one.about.least is not None and int(text) < one.about.least else value


def _called(known: Sequence[Argument], given: dict[str, Any]) -> dict[str, Any]:
    """The options as the function takes them: those of one class as one object of it."""
    called = {one.key: given[one.key] for one in known if one.key in given and one.within is None}
    for whole in {one.within for one in known if one.within}:
        if fields := {one.key: given[one.key] for one in known if one.key in given and one.within is whole}:
            called[whole.key] = whole.hint(**fields)
    return called
