"""What carries a machine to another host, and why; how fast the link there is."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from tinamou.errors import SpecError
from tinamou.fleet import lines
from tinamou.fleet.lines import Link, Listeners, chosen
from tinamou.machine.ends import accepted

HERE = "127.0.0.1"
CHOICES = {
    "a fast link": ("auto", Link(600e6), "tls", "600.0 MB/s were measured"),
    "a slow one": ("auto", Link(1e6), "packed", "packing is worth its time"),
    "a slow one, asked for": ("tls", Link(1e6), "tls", "asked for"),
    "none": ("auto", Link(0.0, "port 49152: Connection refused"), "ssh", "Connection refused"),
    "ssh, asked for": ("ssh", Link(600e6), "ssh", "asked for"),
    "packed, asked for": ("packed", Link(0.0, "it was not asked for"), "packed", "asked for"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_what_carries_is_chosen_by_the_link(case: str) -> None:
    asked, link, line, why = CHOICES[case]
    found, said = chosen(asked, link)
    assert found == line
    assert why in said


def test_what_cannot_be_is_refused_where_it_was_asked_for() -> None:
    with pytest.raises(SpecError, match="no connection of its own"):
        chosen("tls", Link(0.0, "a firewall"))


def listening() -> Listeners:
    return lines.listeners(HERE, HERE)


def test_a_link_is_measured_where_the_other_side_listens() -> None:
    async def both() -> Link:
        with contextlib.closing(listening()) as there:
            draining = asyncio.ensure_future(lines.drained(there))
            try:
                return await lines.measured(HERE, there.ports[1])
            finally:
                draining.cancel()
                await asyncio.wait([draining])

    link = asyncio.run(both())
    assert link.rate > 0
    assert link.why == ""


def test_a_port_where_nobody_listens_is_no_link() -> None:
    with contextlib.closing(listening()) as there:
        port = there.ports[1]
    link = asyncio.run(lines.measured(HERE, port))
    assert link.rate == 0
    assert f"port {port}" in link.why


def test_two_moves_at_once_have_ports_of_their_own() -> None:
    with contextlib.closing(listening()) as one, contextlib.closing(listening()) as other:
        ports = {*one.ports, *other.ports}
    assert len(ports) == 4
    assert ports <= set(lines.PORTS)


def test_another_address_is_not_listened_at() -> None:
    with pytest.raises(OSError, match="assign"):
        lines.listeners("192.0.2.1", HERE)


def test_who_comes_from_elsewhere_is_hung_up_on() -> None:
    async def both(peer: str) -> bytes:
        with contextlib.closing(lines.listeners(HERE, peer)) as there:
            taking = asyncio.ensure_future(accepted(there.memory, peer))
            try:
                with socket.create_connection((HERE, there.ports[1])) as caller:
                    caller.setblocking(False)
                    if peer == HERE:
                        (await taking).close()
                    return await asyncio.get_running_loop().sock_recv(caller, 1)
            finally:
                assert taking.done() == (peer == HERE)
                taking.cancel()

    assert asyncio.run(both(HERE)) == b""
    assert asyncio.run(both("192.0.2.1")) == b""


def test_a_connection_that_carried_is_ended_whoever_else_has_it() -> None:
    async def ended() -> bytes:
        with contextlib.closing(listening()) as there:
            async with lines.direct(HERE, *there.ports) as carrier:
                copy = (await carrier.disks()).dup()
            taken, _ = there.disks.accept()
            with copy, taken:
                return taken.recv(1)

    assert asyncio.run(ended()) == b""
