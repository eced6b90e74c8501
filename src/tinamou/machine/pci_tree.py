"""The host's PCI devices as a drawing: root complexes, bridges and switches, cards, and what a guest would see of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tinamou.machine.passthrough import Row

__all__ = ["drawn"]


def drawn(rows: Sequence[Row]) -> Iterator[str]:
    """The lines, a root complex after the other."""
    roots: dict[str, list[Row]] = {}
    for row in rows:
        one = row.device
        roots.setdefault(one.root or f"{one.address.domain:04x}", []).append(row)
    for root, below in sorted(roots.items()):
        node = next((one.device.node for one in below if one.device.node >= 0), None)
        cpus = next((one.device.cpus for one in below if one.device.cpus), None)
        beside = [f"node {node}"] * (node is not None) + [f"CPUs {cpus}"] * bool(cpus)
        yield " ".join([root, *([f"({', '.join(beside)})"] if beside else [])])
        yield from _below(below, (), "")


def _below(rows: Sequence[Row], bridges: tuple[str, ...], indent: str) -> Iterator[str]:
    """What hangs directly below the last of these bridges, and below that."""
    here = [row for row in rows if row.device.bridges == bridges]
    for number, row in enumerate(here):
        last = number == len(here) - 1
        yield f"{indent}{'└─' if last else '├─'} {_said(row, rows)}"
        within = (*bridges, str(row.device.address))
        if any(one.device.bridges[: len(within)] == within for one in rows):
            yield from _below(rows, within, indent + ("   " if last else "│  "))


def _said(row: Row, rows: Sequence[Row]) -> str:
    one = row.device
    words = [str(one.address), one.kind or "device", one.ids, row.name, *one.nets, one.driver]
    if one.is_bridge:
        return " ".join(filter(None, words))
    words += [f"group {one.group}"] if one.group is not None else []
    words += [f"VF {one.index} of {one.parent}"] if one.parent else []
    words += [f"{one.vfs[0]} of {one.vfs[1]} virtual functions"] if one.vfs[1] else []
    words += [f"{kind.name} ({kind.type}): {kind.free} more" for kind in one.mediated]
    words += [f"mdev {uuid}" for uuid in row.parts]
    words += [f"reset by {' or '.join(one.reset_methods)}"] if one.reset_methods else []
    return f"{' '.join(filter(None, words))} — {row.state}{_in_the_guest(row, rows) if row.free else ''}"


def _in_the_guest(row: Row, rows: Sequence[Row]) -> str:
    """What it is in a guest: functions of one card are those of one slot."""
    one = row.device
    if one.parent:
        return "; in a guest: a card of its own"
    card = [
        other.device
        for other in rows
        if not other.device.parent and str(other.device.address)[:-1] == str(one.address)[:-1] and not other.device.is_bridge
    ]
    return f"; in a guest: function {card.index(one)} of {len(card)} behind a root port of its own"
