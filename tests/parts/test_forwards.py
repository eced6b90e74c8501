"""Ports that lead in: their notation, ranges, IPv6, and the same port twice, told before QEMU is started."""

from __future__ import annotations

import socket

import pytest
from made_facts import facts

from tinamou.blueprint import ReservePort, Why
from tinamou.errors import PlanError, PrepareError, SpecError
from tinamou.parts.net.forwards import forwards_of
from tinamou.planner import plan
from tinamou.prepare.wires import reserve_port
from tinamou.spec import load_spec


@pytest.mark.parametrize(
    ("text", "forwards"),
    [
        ("8080:80", [("tcp", "127.0.0.1", 8080, 80)]),
        ("udp:53:53", [("udp", "127.0.0.1", 53, 53)]),
        ("tcp:0.0.0.0:1:2", [("tcp", "0.0.0.0", 1, 2)]),
        ("[::1]:8080:80", [("tcp", "::1", 8080, 80)]),
        ("udp:[2001:DB8:0::1]:8080:80", [("udp", "2001:db8::1", 8080, 80)]),
        ("8080-8082:80-82", [("tcp", "127.0.0.1", 8080 + n, 80 + n) for n in range(3)]),
        ("65535-65535:1-1", [("tcp", "127.0.0.1", 65535, 1)]),
    ],
)
def test_notation(text: str, forwards: list[tuple[str, str, int, int]]) -> None:
    assert list(forwards_of(text)) == forwards


@pytest.mark.parametrize(
    "text",
    [
        *("", "80", "0:80", "80:0", "65536:1", "8080-8081:80", "8081-8080:80-81", "1-1001:1-1001", "::1:8080:80"),
        *("[1.2.3.4]:1:2", "1.2.3:1:2", "[::1]8080:80", "sctp:1:2", "a:b", "8080:80:90", "[::g]:1:2"),
    ],
)
def test_what_is_no_forward(text: str) -> None:
    with pytest.raises(ValueError):
        forwards_of(text)


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("8080:80", "8080:81", True),
        ("8080:80", "8080:80", True),
        ("8080-8090:80-90", "8085:1", True),
        ("0.0.0.0:8080:80", "127.0.0.2:8080:81", True),
        ("127.0.0.2:8080:80", "0.0.0.0:8080:81", True),
        ("127.0.0.1:8080:80", "127.0.0.2:8080:81", False),
        ("udp:8080:80", "8080:80", False),
        ("[::1]:8080:80", "8080:80", False),
        ("[::]:8080:80", "[::1]:8080:80", True),
        ("8080:80", "8081:80", False),
    ],
)
@pytest.mark.parametrize("apart", [False, True], ids=["one card", "two cards"])
def test_a_port_of_the_host_leads_to_one_place(first: str, second: str, clash: bool, apart: bool) -> None:
    nets = [{"forward": [first]}, {"forward": [second]}] if apart else [{"forward": [first, second]}]
    if not clash:
        load_spec({"net": nets})
        return
    with pytest.raises(SpecError) as error:
        load_spec({"net": nets})
    assert [one.path for one in error.value.problems] == ["net[1].forward[0]" if apart else "net[0].forward[1]"]
    assert first in error.value.problems[0].reason


def netdev(**net: object) -> dict[str, object]:
    planned = plan(load_spec({"net": [net]}), facts())
    return next(dict(one.props) for one in planned.elements if one.id == "net0" and one.kind == "netdev")


def test_each_port_of_a_range_is_led_in() -> None:
    rules = netdev(forward=["8080-8082:80-82"], type="user")["hostfwd"]
    assert rules == [{"str": f"tcp:127.0.0.1:{8080 + n}-:{80 + n}"} for n in range(3)]


def test_ipv6_leads_in_by_passt_or_is_refused() -> None:
    assert netdev(forward=["[::1]:8080:80"])["type"] == "stream"
    said = plan(load_spec({"net": [{"forward": ["[::1]:8080:80"]}]}), facts()).notes
    assert [one.level for one in said if "passt of Debian 12" in one.text] == ["warning"]
    for net, reason in (
        ({"type": "user"}, "listens on IPv4 alone"),
        ({"type": "passt", "ipv6": False}, "no IPv6"),
        ({"type": "bridge", "network": "lab"}, "IPv4 alone is led"),
    ):
        with pytest.raises(PlanError) as error:
            netdev(forward=["[::1]:8080:80"], **net)
        assert reason in str(error.value)


def test_a_taken_ipv6_port_is_told_before_anything_starts() -> None:
    with socket.socket(socket.AF_INET6) as taken:
        try:
            taken.bind(("::1", 0))
        except OSError:
            pytest.skip("this host has no IPv6 loopback")
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PrepareError, match=rf"\[::1\]:{port} is not free"):
            reserve_port(ReservePort("tcp", "::1", port, Why("test", "test")))
