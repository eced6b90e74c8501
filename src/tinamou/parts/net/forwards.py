"""Ports of the host that lead into a guest: their notation, and which of them cannot be together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tinamou.errors import Problem

__all__ = ["Forward", "doubled", "forwards_of", "is_ipv6"]

Forward = tuple[str, str, int, int]
"""Protocol, address on the host, port of the host, port of the guest."""

_FORM = "[tcp:|udp:][address:]hostport:guestport"
_FORWARD = re.compile(
    r"(?:(tcp|udp):)?(?:(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):)?(\d{1,5})(?:-(\d{1,5}))?:(\d{1,5})(?:-(\d{1,5}))?"
)
_MOST = 1000
"""Ports in one range: each is a socket of the program that listens."""

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104


def forwards_of(text: str) -> tuple[Forward, ...]:
    """``"tcp:127.0.0.1:8080:80"``, ``"8080:80"``, ``"[::1]:8080:80"`` or ``"8080-8085:80-85"``, a forward for each port.

    On 127.0.0.1 where no address is given. Raises ValueError.
    """
    match = _FORWARD.fullmatch(text)
    if not match:
        raise ValueError(f"not a port forward of the form {_FORM}; ranges are 8080-8085, an IPv6 address is in brackets")
    import ipaddress

    protocol, six, four, *numbers = match.groups()
    address = str(ipaddress.IPv6Address(six) if six else ipaddress.IPv4Address(four or "127.0.0.1"))
    first, last, to, to_last = (int(number) if number else 0 for number in numbers)
    last, to_last = last or first, to_last or to
    if not (0 < first <= last < 65536 and 0 < to <= to_last < 65536):
        raise ValueError("ports are 1 to 65535, and a range begins with the smaller one")
    if last - first != to_last - to:
        raise ValueError(f"{last - first + 1} ports of the host cannot lead to {to_last - to + 1} of the guest")
    if last - first >= _MOST:
        raise ValueError(f"{last - first + 1} ports are more than one range can have, {_MOST}")
    return tuple((protocol or "tcp", address, first + n, to + n) for n in range(last - first + 1))


def is_ipv6(forward: Forward) -> bool:
    """Whether it listens on an IPv6 address."""
    return ":" in forward[1]


def doubled(lists: Sequence[Sequence[str]]) -> Iterator[Problem]:
    """Ports that two forwards of a machine would have; ``lists`` are those of its interfaces, in the order of these."""
    seen: dict[tuple[str, bool, int], list[tuple[str, str]]] = {}
    for number, texts in enumerate(lists):
        for index, text in enumerate(texts):
            if clash := _clash(text, seen):
                reason = f"{clash[0]} leads somewhere else already: {clash[1]}"
                yield Problem(f"net[{number}].forward[{index}]", text, reason, "choose another port of the host")


def _clash(text: str, seen: dict[tuple[str, bool, int], list[tuple[str, str]]]) -> tuple[str, str] | None:
    """The first port of a forward that is taken, with the forward that has it; notes those that are not."""
    try:
        found = forwards_of(text)
    except ValueError:  # told elsewhere
        return None
    for forward in found:
        protocol, address, port, _ = forward
        there = seen.setdefault((protocol, is_ipv6(forward), port), [])
        for other, by in there:
            if other == address or other in _EVERYWHERE or address in _EVERYWHERE:
                return f"port {port}", by
        there.append((address, text))
    return None
