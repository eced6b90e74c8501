"""Every field and verb has its words: in the schema, in the reference, on a manual page; and JSON keeps its kinds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from json_shapes import FILE, told

from tinamou.cli.grammar import arguments
from tinamou.cli.verbs import GROUPS, VERBS, module_of
from tinamou.spec import SHORT, spec_schema

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
SAID_ONCE = {"name", "host", "nic", "json", "more", "names"}
"""Words that are what they are called, whichever verb they stand with."""


def verbs() -> Iterator[tuple[str, Any]]:
    """Every verb, and those below one, with its function."""
    for verb in VERBS:
        if verb == "completion":
            continue
        if verb not in GROUPS:
            yield verb, module_of(verb).command
            continue
        group = module_of(verb).app
        yield from ((f"{verb} {name}", function) for name, function in group.verbs.items() if name not in group.hidden)


def leaves(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every field of a schema by its path, with what is said of it."""
    for name, inner in node["properties"].items():
        shapes = [inner, *inner.get("anyOf", ())]
        items = [one["items"] for one in shapes if "items" in one]
        tables = [one for one in (*shapes, *items, *(s for i in items for s in i.get("anyOf", ()))) if "properties" in one]
        if not tables:
            yield f"{path}{name}", inner
        for table in tables[:1]:
            yield from leaves(table, f"{path}{name}.")


def test_every_field_is_described_and_in_the_reference() -> None:
    page = (REFERENCE / "spec.md").read_text()
    whole = {**spec_schema(), "properties": {k: v for k, v in spec_schema()["properties"].items() if k not in SHORT}}
    fields = dict(leaves(whole))
    assert len(fields) > 150
    assert [path for path, node in fields.items() if not node.get("description")] == []
    assert [path for path in fields if not re.search(rf"^\| `{path.rpartition('.')[2]}` \|", page, re.M)] == []


def test_every_verb_and_option_is_described_and_in_the_reference() -> None:
    page = (REFERENCE / "commands.md").read_text()
    for verb, function in verbs():
        assert re.search(rf"^#+ (tinamou )?{verb}$", page, re.M), verb
        assert function.__doc__, verb
        for one in arguments(function):
            if one.key in SAID_ONCE or one.within is not None or not one.about.said.get("show", True):
                continue
            assert re.search(rf"^\s*\*?{one.key}\s*$", function.__doc__, re.M), f"{verb}: {one.key} is not described"


@pytest.mark.skipif(not shutil.which("go-md2man"), reason="needs go-md2man (script/setup installs it)")
def test_every_verb_has_a_manual_page(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "script/man", tmp_path], check=True, capture_output=True)
    pages = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {f"tinamou-{verb}.1" for verb in VERBS} | {"tinamou.1", "tinamou.toml.5"} <= pages


def differing(recorded: Any, found: Any, path: str) -> Iterator[str]:
    """Where a shape is another one. What is there at times only may be missing, of a list as of a value, not its key."""
    if "nothing" in (recorded, found) or [] in (recorded, found):
        return
    if isinstance(recorded, dict) and isinstance(found, dict):
        if recorded.keys() != found.keys():
            yield f"{path}: keys {sorted(recorded.keys() ^ found.keys())}"
        for key in recorded.keys() & found.keys():
            yield from differing(recorded[key], found[key], f"{path}.{key}")
    elif isinstance(recorded, list) and isinstance(found, list):
        yield from differing(recorded[0], found[0], f"{path}[]")
    elif recorded != found:
        yield f"{path}: {found} instead of {recorded}"


def test_a_difference_is_seen() -> None:
    assert list(differing({"a": "text", "b": ["text"]}, {"a": "nothing", "b": []}, "x")) == []
    assert list(differing({"a": "text"}, {"a": "number"}, "x")) == ["x.a: number instead of text"]
    assert list(differing([{"a": "text"}], [{"b": "text"}], "x")) == ["x[]: keys ['a', 'b']"]
    assert list(differing({"a": "text"}, {"a": ["text"]}, "x")) == ["x.a: ['text'] instead of text"]


@pytest.mark.vm
@pytest.mark.root
@pytest.mark.timeout(600)
def test_json_has_the_same_keys_and_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINAMOU_UNITS", str(tmp_path))
    recorded, found = json.loads(FILE.read_text()), dict(told())
    assert recorded.keys() == found.keys()
    assert [one for line in recorded for one in differing(recorded[line], found[line], line)] == []
