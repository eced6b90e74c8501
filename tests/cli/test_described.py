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


@pytest.mark.parametrize("first", ["'passt'", "{type = 'passt'}"])
def test_ports_lead_in_through_the_first_network(tmp_path, first):
    (tmp_path / "m.toml").write_text(f'image = "tiny"\nnet = [{first}, {{type = "user", mac = "52:54:00:00:00:07"}}]\n')
    spec = described(str(tmp_path / "m.toml"), {"publish": ("8080:80", "5353:53/udp")})
    assert [(one.type, str(one.mac or ""), [str(port) for port in one.forward]) for one in spec.net] == [
        ("passt", "", ["8080:80", "udp:5353:53"]),
        ("user", "52:54:00:00:00:07", []),
    ]
    (tmp_path / "m.toml").write_text('image = "tiny"\nnet = []\n')
    with pytest.raises(SpecError, match="ports cannot lead into a machine without a network"):
        described(str(tmp_path / "m.toml"), {"publish": ("8080:80",)})
