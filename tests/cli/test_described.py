"""What the options of a command line make of a machine."""

from __future__ import annotations

import pytest

from tinamou.cli.described import described
from tinamou.errors import SpecError
from tinamou.units import Size


def test_a_field_is_set_beside_the_option_that_stands_for_its_table():
    spec = described("tiny", {"memory": "1G", "set": ("memory.floor=256M",)})
    assert (spec.memory.size, spec.memory.floor) == (Size.parse("1G"), Size.parse("256M"))


def test_a_field_of_what_is_no_table_is_refused():
    with pytest.raises(SpecError) as error:
        described("tiny", {"name": "web", "set": ("name.floor=1", "memory.floor=2G")})
    assert "name.floor" in str(error.value)
