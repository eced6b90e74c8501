"""What a machine's cards have carried and lost: as the guest counts, as its interface on the host does, and the filter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tinamou.control import connect_qmp
from tinamou.control.commands import monitor
from tinamou.errors import TinamouError
from tinamou.facts import files
from tinamou.network.nics import NicView, look
from tinamou.parts.net import NetSpec, interfaces
from tinamou.parts.net.spec import FILTERED
from tinamou.parts.net.wiring import host_link, link_name
from tinamou.spec import load_spec
from tinamou.state.record import Record
from tinamou.system import nft
from tinamou.system.exec import CommandError, TimeoutExpired

__all__ = ["counted"]

_FIELDS = {
    "received": "rx_bytes",
    "sent": "tx_bytes",
    "packets in": "rx_packets",
    "packets out": "tx_packets",
    "dropped in": "rx_dropped",
    "dropped out": "tx_dropped",
}


async def counted(record: Record, *, guest: bool = True) -> list[dict[str, Any]]:
    """Rows for each card, ``seen`` from ``guest``, ``host``, ``switch`` or ``filter``; ``guest`` says that it can answer.

    In and out are the guest's: what the host's interface sends, the guest receives. Raises ControlError.
    """
    nics = await _inside(record) if guest else {}
    rows = []
    for number, spec in interfaces(load_spec(record.spec).net).items():
        nic = nics.get(f"net{number}-dev")
        if nic is not None and nic.guest is not None:
            rows.append(_row(f"net{number}", "guest", nic.guest.counters))
        rows += _outside(record, spec, number)
    return rows


async def _inside(record: Record) -> dict[str, NicView]:
    """The cards by id, as QEMU and the guest's agent have them; QEMU's monitor is left before the guest is asked."""
    from tinamou.guest.agent import Agent

    async with await connect_qmp(record.directory, alive=lambda: record.running) as session:
        cards = await monitor(session, "info network")
    return {nic.id: nic for nic in await look(cards, Agent(str(record.file(files.AGENT))), {})}


def _outside(record: Record, spec: NetSpec, number: int) -> Iterator[dict[str, Any]]:
    nic, link = f"net{number}", host_link(spec, record.directory, number)
    if link:
        yield _row(nic, "host", _turned(_of_link(link)))
    if spec.switched:
        name = link or link_name(record.directory, number)
        yield _row(nic, "switch", _turned(_of_switch(name)))
    if spec.type in FILTERED:
        yield {"nic": nic, "seen": "filter", "dropped": nft.dropped(link)}


def _row(nic: str, seen: str, counters: Mapping[str, int]) -> dict[str, Any]:
    errors = counters.get("rx_errors", 0) + counters.get("tx_errors", 0)
    return {"nic": nic, "seen": seen, **{word: counters.get(key, 0) for word, key in _FIELDS.items()}, "errors": errors}


def _turned(counters: Mapping[str, int]) -> dict[str, int]:
    """The same from the other end of the cable."""
    other = {"rx": "tx", "tx": "rx"}
    return {
        other[way] + rest: value for key, value in counters.items() for way, rest in [(key[:2], key[2:])] if way in other
    }


def _of_link(name: str) -> dict[str, int]:
    """Source: Documentation/ABI/testing/sysfs-class-net-statistics."""
    folder = Path("/sys/class/net") / name / "statistics"
    return {path.name: int(path.read_text()) for path in folder.iterdir()} if folder.is_dir() else {}


def _of_switch(name: str) -> dict[str, int]:
    from tinamou.system import ovs

    try:
        return ovs.counters(name)
    except (TinamouError, CommandError, TimeoutExpired):
        return {}
