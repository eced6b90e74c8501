"""The machine without asyncio is the one with it, method by method; and the public names are what the reference says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import tinamou
from tinamou import aio
from tinamou.machine import blocking

ROOT = Path(__file__).parent.parent.parent
TWINS = {name: (getattr(aio, name), getattr(blocking, name)) for name in aio.__all__ if hasattr(blocking, name)}
OWN = {
    "Machine": {"connected", "of", "session"},
    "Forks": set(),
}
"""Names only the asynchronous one has: they hand out what is itself asynchronous."""


def public(cls: type) -> dict[str, object]:
    return {key: inspect.getattr_static(cls, key) for key in dir(cls) if not key.startswith("_")}


def shape(thing: object) -> object:
    """What a caller has to know of a member: its parameters; a property is its own kind."""
    if isinstance(thing, property):
        return "property"
    function = thing.__func__ if isinstance(thing, classmethod) else thing
    signature = inspect.signature(function)
    return [(one.name, one.kind, one.default, one.annotation) for one in signature.parameters.values()]


def differences(asynchronous: type, plain: type, own: set[str]) -> list[str]:
    there, here = public(asynchronous), public(plain)
    found = [f"{key} is missing" for key in there.keys() - here.keys() - own]
    found += [f"{key} is only here" for key in here.keys() - there.keys()]
    both = (key for key in there.keys() & here.keys() if key != "around")
    return sorted([*found, *(f"{key} differs" for key in both if shape(there[key]) != shape(here[key]))])


def test_every_class_has_a_twin():
    assert set(TWINS) == {"Disks", "Machine", "Nics", "Pool", "SharedPool", "Snapshots"}


@pytest.mark.parametrize("name", sorted(TWINS))
def test_the_same_methods(name):
    assert differences(*TWINS[name], OWN.get(name, set())) == []


def test_made_alike():
    for name, (asynchronous, plain) in TWINS.items():
        if name in ("Machine", "Pool", "SharedPool"):
            assert shape(asynchronous.__init__) == shape(plain.__init__), name


def test_a_difference_is_seen():
    class One:
        def a(self, x: int = 1) -> None: ...
        def b(self) -> None: ...

    class Other:
        def a(self, x: int = 2) -> None: ...
        def c(self) -> None: ...

    assert differences(One, Other, set()) == ["a differs", "b is missing", "c is only here"]
    assert differences(One, Other, {"b"}) == ["a differs", "c is only here"]


def test_every_public_name_is_there_and_in_the_reference():
    page = (ROOT / "docs/reference/python.md").read_text()
    for name in tinamou.__all__:
        assert getattr(tinamou, name) is not None
        if name != "__version__":
            assert re.search(rf"tinamou\.{name}\b|`{name}`", page), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tinamou.nothing
