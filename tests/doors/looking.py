"""Looks at every field of a machine that a door opened, and says which are not as described."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from pprint import pformat

from fields import Group, Look, said_by
from leftovers import Leftovers
from seen import Seen
from ways import Asked, Way

_MARK = "@@ "


def differences(group: Group, way: Way, place: Path, *, prefix: tuple[str, ...] = ()) -> dict[str, tuple[object, object]]:
    """``door: field`` → what was found, and what was expected."""
    description = group.describe(place)
    there = said_by(description)
    looks = {name: look for name, look in group.looks.items() if name in there}
    asked = Asked(description, _script(looks), place, prefix, group.waited)
    wrong: dict[str, tuple[object, object]] = {}
    with contextlib.closing(way(asked)) as doors:
        for opened in doors:
            seen = Seen(opened.record, opened.name, place, prefix)
            found = {name: _tried(look, seen) for name, look in looks.items() if look.host}
            expected = {name: look.expect(seen) if callable(look.expect) else look.expect for name, look in looks.items()}
            found |= _told(opened.said())
            for name, wanted in expected.items():
                if found.get(name) != wanted:
                    wrong[f"{opened.door}: {name}"] = (found.get(name), wanted)
    return wrong


def as_described(group: Group, way: Way, place: Path, leftovers: Leftovers, *, prefix: tuple[str, ...] = ()) -> None:
    """Fails with all that is not as described, and with what is left once the checkpoints that were kept are removed."""
    wrong = differences(group, way, place, prefix=prefix)
    assert not wrong, pformat(wrong, width=160)
    leftovers.remove_checkpoints()
    assert leftovers.settle() == []


def _tried(look: Look, seen: Seen) -> object:
    """What is found; an error is what is found where nothing is."""
    assert look.host is not None
    try:
        return look.host(seen)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _script(looks: Mapping[str, Look]) -> str:
    """One script for all that is asked of the guest, which waits until it has done all of its boot."""
    lines = ["tries=0; until [ -e /run/settled ] || [ $tries -gt 3000 ]; do sleep 0.1; tries=$((tries + 1)); done"]
    lines += [f"echo; echo '{_MARK}{name}'; {{ {look.guest}; }} 2>&1" for name, look in looks.items() if look.guest]
    return "\n".join([*lines, "true"])


def _told(text: str) -> dict[str, object]:
    parts = [part.partition("\n") for part in text.split(_MARK)[1:]]
    return {name.strip(): value.strip() for name, _, value in parts}
