"""Texts of others' machines in a machine file: as they were, and written in a time that grows with their length."""

import tomllib

import pytest

from tinamou.convert import writing


@pytest.mark.timeout(120)
@pytest.mark.parametrize("text", ['a"b\\c\nd\x7f\x00\x1b é\t\r\u2028', '"' * 60_000, "\\\x01" * 30_000, "", "'''"])
def test_any_text_is_read_as_it_was_written(text):
    machine = {"name": "x", "disk": [{"path": text}], "net": [{"type": "user", "forward": [text, "b"]}]}
    read = tomllib.loads(writing.text(machine, "a"))
    assert (read["disk"], read["net"][0]["forward"]) == ([{"path": text}], [text, "b"])
