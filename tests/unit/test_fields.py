"""Plain data becomes dataclasses: each limit a field declares is kept to exactly, each kind of value is told from others."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal, get_args, get_type_hints

import pytest

from tinamou.errors import Problem
from tinamou.fields import json_schema, load, option, plain
from tinamou.late import dataclass
from tinamou.spec import MachineSpec
from tinamou.units import CpuSet, Mac, PciAddress, Size


def classes(cls, found):
    """The dataclasses a machine file is made of."""
    if dataclasses.is_dataclass(cls) and cls not in found:
        found.append(cls)
        for hint in get_type_hints(cls).values():
            for kind in (hint, *get_args(hint)):
                classes(kind, found)
    return found


LIMITED = [
    (cls, field)
    for cls in classes(MachineSpec, [])
    for field in dataclasses.fields(cls)
    if field.metadata.get("minimum") is not None or field.metadata.get("maximum") is not None
]


def said(cls, name, value):
    """What loading the class with one field says of that field."""
    return next((problem.reason for problem in load(cls, {name: value})[1] if problem.path == name), "")


@pytest.mark.parametrize(("cls", "field"), LIMITED, ids=lambda one: getattr(one, "name", getattr(one, "__name__", "")))
def test_a_limit_is_allowed_and_one_beyond_is_not(cls, field):
    low, high = field.metadata["minimum"], field.metadata["maximum"]
    for limit, beyond, words in ((low, -1, "must be at least"), (high, 1, "must be at most")):
        if limit is not None:
            assert "must be" not in said(cls, field.name, limit)
            assert said(cls, field.name, limit + beyond).startswith(words)


def test_there_are_fields_with_either_limit():
    assert {"minimum", "maximum"} <= {
        key for _, field in LIMITED for key, value in field.metadata.items() if value is not None
    }


@dataclass(frozen=True)
class Inner:
    """A table that a bare value can stand for."""

    shorthand = "size"

    size: Size = option(Size(1 << 20), "a size", minimum=4096, hint="write 1M")
    way: Literal["", "on", "off"] = option("off", "a choice")


@dataclass(frozen=True)
class Everything:
    """One field of each kind."""

    word: str = option("", "a word", pattern=r"[a-z]+", hint="lower case")
    count: int = option(1, "a number", minimum=1, maximum=4096, hint="1 to 4096")
    most: int | None = option(None, "a number, or none", minimum=1, maximum=4)
    share: float = option(0.0, "a share")
    fast: bool = option(False, "whether")
    mac: Mac | None = option(None, "an address")
    cpus: CpuSet = option(CpuSet(), "CPUs")
    card: PciAddress = option(PciAddress.parse("0000:00:00.0"), "a device")
    kind: Literal["a", "b"] = option("a", "a kind")
    inner: Inner = option(Inner, "a table")
    many: tuple[Inner, ...] = option((), "tables")
    free: dict[str, int] = option(dict, "a table of any names")


KINDS = ["number", "boolean", "string", "string", "string"]

GOOD = [
    ({"word": "ab", "count": 8, "share": 1, "fast": True}, Everything("ab", 8, share=1.0, fast=True)),
    ({"word": "", "most": None}, Everything()),
    ({"most": 4}, Everything(most=4)),
    ({"mac": None, "cpus": "0-3"}, Everything(cpus=CpuSet({0, 1, 2, 3}))),
    ({"cpus": CpuSet({1}), "card": "65:00.1"}, Everything(cpus=CpuSet({1}), card=PciAddress.parse("0000:65:00.1"))),
    ({"card": PciAddress.parse("65:00.1")}, Everything(card=PciAddress.parse("0000:65:00.1"))),
    ({"inner": "2M"}, Everything(inner=Inner(Size(2 << 20)))),
    ({"inner": 8192}, Everything(inner=Inner(Size(8192)))),
    ({"inner": {"way": True}}, Everything(inner=Inner(way="on"))),
    ({"inner": {"way": False}}, Everything(inner=Inner(way="off"))),
    ({"inner": Inner(way="on")}, Everything(inner=Inner(way="on"))),
    ({"many": ["1M", {"way": "on"}]}, Everything(many=(Inner(), Inner(way="on")))),
    ({"many": "2M"}, Everything(many=(Inner(Size(2 << 20)),))),
    ({"free": {"soup": 1}}, Everything(free={"soup": 1})),
]


@pytest.mark.parametrize(("data", "expected"), GOOD)
def test_what_is_written_becomes_a_value(data, expected):
    assert load(Everything, data) == (expected, [])
    assert load(Everything, plain(expected)) == (expected, [])
    assert type(load(Everything, data)[0].share) is float


BAD = [
    ("soup", "spec", "expected a table of settings", "write it as key = value pairs"),
    ({"wrod": "a"}, "wrod", "unknown field", "did you mean word?"),
    (
        {"zz": "a"},
        "zz",
        "unknown field",
        "known here: card, count, cpus, fast, free, inner, kind, mac, many, most, share, word",
    ),
    ({"word": 1}, "word", "expected text, found int", ""),
    ({"word": "AB"}, "word", "not a value it can have", "lower case"),
    ({"word": "a\0"}, "word", "has a zero byte in it", ""),
    ({"word": "a\ud800"}, "word", "has half a character in it (a lone surrogate)", ""),
    ({"count": True}, "count", "expected a whole number, found bool", ""),
    ({"count": 1.5}, "count", "expected a whole number, found float", ""),
    ({"count": 4097}, "count", "must be at most 4096", "1 to 4096"),
    ({"most": 5}, "most", "must be at most 4", ""),
    ({"most": 0}, "most", "must be at least 1", ""),
    ({"share": True}, "share", "expected a number, found bool", ""),
    ({"share": "much"}, "share", "expected a number, found str", ""),
    ({"free": 1}, "free", "expected a table, found int", ""),
    ({"fast": 1}, "fast", "expected true or false, found int", ""),
    ({"mac": "soup"}, "mac", "not a MAC address; write for example 52:54:00:12:34:56", ""),
    ({"inner": True}, "inner.size", "not a size; write for example 512M or 2G", ""),
    ({"inner": "1K"}, "inner.size", "must be at least 4K", "write 1M"),
    ({"inner": {"way": "onn"}}, "inner.way", "not one of on, off", "did you mean on?"),
    ({"inner": {"way": "soup"}}, "inner.way", "not one of on, off", ""),
    ({"many": ["1M", "soup"]}, "many[1].size", "not a size; write for example 512M or 2G", ""),
]


@pytest.mark.parametrize(("data", "path", "reason", "fix"), BAD)
def test_what_is_no_value_is_refused_with_path_reason_and_fix(data, path, reason, fix):
    value, problems = load(Everything, data)
    assert value is None
    assert [problem.path for problem in problems] == [path]
    assert problems[0].reason == reason
    assert problems[0].fix == fix


def test_a_problem_shows_where_and_what_was_written():
    assert load(Everything, "soup", "machine")[1][0].path == "machine"
    assert load(Inner, {"size": "1K"}, "disk[0]")[1] == [Problem("disk[0].size", "1K", "must be at least 4K", "write 1M")]
    assert load(Everything, {"count": 0})[1] == [Problem("count", 0, "must be at least 1", "1 to 4096")]


def test_no_problem_hides_another():
    paths = [one.path for one in load(Everything, {"count": 0, "word": 1, "many": ["x", {"way": 3}], "zz": 1})[1]]
    assert paths == ["zz", "word", "count", "many[0].size", "many[1].way"]


def test_defaults_are_left_out_of_plain_data():
    assert plain(Everything()) == {}
    assert plain(Everything(count=2, mac=Mac.parse("52:54:00:00:00:01"), many=(Inner(),))) == {
        "count": 2,
        "mac": "52:54:00:00:00:01",
        "many": [{}],
    }


def test_the_schema_says_what_is_read():
    schema = json_schema(Everything)["properties"]
    assert schema["count"] == {"type": "integer", "description": "a number", "minimum": 1, "maximum": 4096}
    assert schema["most"] == {"anyOf": [{"type": "integer"}], "description": "a number, or none"}
    assert schema["mac"] == {"anyOf": [{"type": "string"}], "description": "an address"}
    assert [schema[name]["type"] for name in ("share", "fast", "word", "cpus", "card")] == KINDS
    assert schema["many"]["anyOf"][0] == {"type": "array", "items": schema["many"]["anyOf"][1]}
    assert schema["inner"]["description"] == "a table"
    assert schema["free"] == {"type": "object", "description": "a table of any names"}
    size = schema["inner"]["anyOf"][0]["properties"]["size"]
    assert size == {**schema["inner"]["anyOf"][1], "description": "a size"}
    assert (size["anyOf"][0]["type"], bool(re.match(size["anyOf"][0]["pattern"], "2M"))) == ("string", True)
    assert schema["inner"]["anyOf"][0]["type"] == "object"
    assert json_schema(Everything)["$schema"].endswith("2020-12/schema")
    assert schema["inner"]["anyOf"][1]["anyOf"][1] == {"type": "integer"}
    assert schema["inner"]["anyOf"][0]["properties"]["way"]["enum"] == ["", "on", "off", True, False]
    assert schema["kind"]["enum"] == ["a", "b"]
    assert json_schema(Everything)["additionalProperties"] is False
