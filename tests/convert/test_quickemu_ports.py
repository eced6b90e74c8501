"""Ranges of ports are read as quickemu's users write them: each port leads to its own."""

from __future__ import annotations

import pytest

from tinamou.convert.quickemu import read
from tinamou.parts.net.forwards import forwards_of


@pytest.mark.parametrize(
    ("ports", "led"),
    [
        ('"8000-8002:9000-9002"', [(8000, 9000), (8001, 9001), (8002, 9002)]),
        ('"8080:80" "2222:22"', [(8080, 80), (2222, 22)]),
    ],
)
def test_each_port_leads_to_its_own(ports: str, led: list[tuple[int, int]]) -> None:
    draft = read(f'guest_os="linux"\ndisk_img="a.qcow2"\nport_forwards=({ports})\n')
    [net] = draft.nets
    assert [one[2:] for text in net["forward"] for one in forwards_of(text)] == led
