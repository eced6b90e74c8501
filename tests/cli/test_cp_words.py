"""What ``cp`` says of what it copied, and the limits it takes."""

from __future__ import annotations

import pytest

from tinamou.cli import cp
from tinamou.errors import SpecError
from tinamou.guest.copy import Copied, parse_end


def test_what_was_left_out_is_named_a_few_at_most(capsys: pytest.CaptureFixture[str]) -> None:
    cp._told(parse_end("m:/dev"), Copied(0, True, ("null", "a\nb")))
    assert capsys.readouterr().err.rstrip() == r"tinamou: /dev: devices and pipes were left out: null, a\nb"
    cp._told(parse_end("m:/dev"), Copied(0, True, tuple(f"tty{number}" for number in range(7))))
    assert capsys.readouterr().err.rstrip().endswith("left out: tty0, tty1, tty2, tty3, tty4 and 2 more")
    cp._told(parse_end("m:/dev"), Copied(0, True, tuple(f"tty{number}" for number in range(5))))
    assert capsys.readouterr().err.rstrip().endswith("left out: tty0, tty1, tty2, tty3, tty4")
    cp._told(parse_end("m:/a"), Copied(1, False))
    assert "/a was copied, but not checked: the guest has no sha256sum" in capsys.readouterr().err
    cp._told(parse_end("m:/a"), Copied(1, True))
    assert capsys.readouterr() == ("", "")


def test_a_limit_is_a_size() -> None:
    assert (cp._bound(""), cp._bound("2M"), cp._bound("10")) == (None, 2 << 20, 10)
    with pytest.raises(SpecError) as error:
        cp._bound("much")
    assert "--limit" in str(error.value) and "'much'" in str(error.value)
