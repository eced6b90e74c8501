"""How much memory each guest should hold: pure, from what the guests and the host have now, and a budget.

A guest *needs* what it uses and a margin, and never less than its floor. It is *short* when less than half the margin is
available. What is short is given what it needs at once, whatever the budget says; what is idle gives, the one with most to
spare first and a step at a time, while the machines hold more than the budget or the host is short. Between half a margin
and a whole one nothing is done for a guest, and between the host's reserve and twice that nothing for the host: a number
that moves a little moves no balloon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinamou.blueprint import Why
from tinamou.late import dataclass
from tinamou.units import Size

__all__ = ["Decision", "Guest", "Host", "decide", "margin", "need"]

MIB = 1 << 20
STALE = 30.0
"""Seconds after which what a guest said says nothing of what it needs now."""

_SMALLEST_GIFT = 16 * MIB
PRESSED = 10.0
"""Per cent of the time in which everything waits for memory: more, and the host is short whatever seems available."""

_UNBOUNDED = 1 << 60


@dataclass(frozen=True)
class Guest:
    """One machine. ``floor`` is None where the watch may take nothing; ``available`` and ``age`` are the guest's own word,
    None where it has said nothing. ``settled`` is False while its balloon moves, and its word may be from before that: it
    can be given something then, but nothing is taken."""

    name: str
    size: int
    holds: int
    floor: int | None = None
    available: int | None = None
    age: float | None = None
    settled: bool = True


@dataclass(frozen=True)
class Host:
    """Its memory: ``available``, what of it should stay so, and the share of time spent waiting for memory, in per cent."""

    available: int
    reserve: int
    pressure: float = 0.0


@dataclass(frozen=True)
class Decision:
    """What a guest should hold from now on, and why; ``before`` is what it holds."""

    name: str
    before: Size
    target: Size
    why: Why

    @property
    def changes(self) -> bool:
        """Whether the balloon is to be told anything."""
        return self.target != self.before


def margin(guest: Guest) -> int:
    """What should be available in a guest beside what it uses: an eighth of its size, at least 64 MiB, at most 1 GiB."""
    return min(max(guest.size // 8, 64 * MIB), 1 << 30)


def need(guest: Guest) -> int:
    """What a guest must be left: what it uses and its margin, rounded up to whole MiB; never less than its floor."""
    used = max(0, guest.holds - (guest.available or 0))
    return min(guest.size, max(guest.floor or 0, _up(used + margin(guest))))


def decide(guests: Sequence[Guest], host: Host | None = None, budget: int | None = None) -> list[Decision]:
    """One decision for each guest, in their order; the sum stays within the budget where floors and needs allow it."""
    movable = [one for one in guests if not _left_alone(one)]
    targets = {one.name: one.holds for one in guests}
    for one in movable:
        targets[one.name] = max(one.holds, need(one)) if _short(one) else max(one.holds, min(one.floor or 0, one.size))
    over = _over(targets, host, budget)
    if over > 0:
        _take(movable, targets, over)
    elif over < 0:
        _give(movable, targets, -over)
    cause = _cause(guests, host, budget)
    return [Decision(one.name, Size(one.holds), Size(targets[one.name]), _why(one, targets, cause)) for one in guests]


def _left_alone(guest: Guest) -> str:
    """Why nothing is decided for a guest; empty where something may be."""
    if guest.floor is None:
        return "it has no memory.floor"
    if guest.available is None or guest.age is None:
        return "its guest has not told what it uses"
    if guest.age > STALE:
        return f"what its guest told is {guest.age:.0f} s old"
    return "" if guest.settled or _short(guest) else "its balloon still moves"


def _short(guest: Guest) -> bool:
    return (guest.available or 0) < margin(guest) // 2 and guest.holds < guest.size


def _over(targets: Mapping[str, int], host: Host | None, budget: int | None) -> int:
    """How much too much all machines hold; less than 0: how much more they may. The tighter of budget and host counts."""
    limits = []
    if budget is not None:
        limits.append(sum(targets.values()) - budget)
    if host is not None:
        limits.append(_host_lacks(host))
    return max(limits, default=-_UNBOUNDED)


def _host_lacks(host: Host) -> int:
    """What the host wants back; less than 0 what it can spare; 0 in between, so that neither follows from the other."""
    if host.available < host.reserve:
        return host.reserve - host.available
    if host.pressure > PRESSED:
        return host.reserve // 4
    return min(0, 2 * host.reserve - host.available)


def _take(movable: Sequence[Guest], targets: dict[str, int], wanted: int) -> None:
    """From the guest with most to spare first, until all who give have equally much to spare; a step each at most."""
    spare = {one.name: max(0, one.holds - need(one)) for one in movable if not _short(one)}
    level = _level(list(spare.values()), wanted)
    for one in movable:
        most = min(spare.get(one.name, 0) - level, _step(one))
        if most > 0:
            targets[one.name] = max(one.holds - _up(most), need(one))


def _level(spare: Sequence[int], wanted: int) -> int:
    """What each may keep to spare so that ``wanted`` is taken in all; 0 where that is not enough."""
    ordered = sorted(spare, reverse=True)
    for count, lower in enumerate([*ordered[1:], 0], 1):
        if sum(ordered[:count]) - count * lower >= wanted:
            return (sum(ordered[:count]) - wanted) // count
    return 0


def _step(guest: Guest) -> int:
    """The most that is taken at once: the guest must first drop caches, and may turn out to need what it showed as free."""
    return max(guest.size // 8, 64 * MIB)


def _give(movable: Sequence[Guest], targets: dict[str, int], room: int) -> None:
    """First a second margin to who is short, then the rest to all by what they lack; small gifts are left out."""
    for one in sorted(movable, key=lambda one: one.available or 0):
        if _short(one):
            more = min(_down(room), margin(one), one.size - targets[one.name])
            targets[one.name] += more
            room -= more
    lacking = {one.name: one.size - targets[one.name] for one in movable}
    share = min(1.0, room / max(1, sum(lacking.values())))
    for name, lacks in lacking.items():
        gift = lacks if share >= 1 else _down(int(lacks * share))
        if gift >= _SMALLEST_GIFT or 0 < gift == lacks:
            targets[name] += gift


def _up(size: int) -> int:
    return -(-size // MIB) * MIB


def _down(size: int) -> int:
    return size // MIB * MIB


def _cause(guests: Sequence[Guest], host: Host | None, budget: int | None) -> str:
    said, holds = [], Size(sum(one.holds for one in guests)).short
    if budget is not None:
        said.append(f"the machines hold {holds} of a budget of {Size(budget).short}")
    if host is not None and (budget is None or _host_lacks(host) >= 0):
        said.append(f"the host has {Size(host.available).short} available, {Size(host.reserve).short} should stay")
    return ", ".join(said) or f"the machines hold {holds}, nothing bounds them"


def _why(guest: Guest, targets: Mapping[str, int], cause: str) -> Why:
    if reason := _left_alone(guest):
        return Why("watch", f"left alone: {reason}")
    target, available = targets[guest.name], Size(guest.available or 0).short
    if target > guest.holds:
        what = "short" if _short(guest) else "has room to get more"
    elif target < guest.holds:
        what = f"idle, needs {Size(need(guest)).short}"
    else:
        what = f"needs {Size(need(guest)).short}"
    return Why("watch balance", f"{what}: {available} of {Size(guest.holds).short} available in the guest; {cause}")
