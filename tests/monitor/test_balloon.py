"""The balloon controller: what it must never do, whatever it is told, and what a person would expect of it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tinamou.monitor.balloon import MIB, STALE, Guest, Host, decide, margin, need

SIZES = st.integers(64, 8192).map(lambda mib: mib * MIB)


@st.composite
def guests(draw, most=5):
    """Machines as they can be: the floor within the size, what is held within both or a little beside."""
    found = []
    for number in range(draw(st.integers(1, most))):
        size = draw(SIZES)
        floor = draw(st.none() | st.integers(16 * MIB, size))
        holds = draw(st.integers(16 * MIB, size))
        available = draw(st.none() | st.integers(0, holds))
        age = draw(st.none() | st.floats(0, 3 * STALE))
        found.append(Guest(f"g{number}", size, holds, floor, available, age, draw(st.booleans())))
    return found


HOSTS = st.none() | st.builds(
    Host,
    available=st.integers(0, 64 << 30),
    reserve=st.integers(256 * MIB, 4 << 30),
    pressure=st.floats(0, 100),
)
BUDGETS = st.none() | st.integers(0, 64 << 30)


def movable(guest):
    known = guest.floor is not None and guest.available is not None and guest.age is not None and guest.age <= STALE
    return known and (guest.settled or guest.available < margin(guest) // 2)


def short(guest):
    return movable(guest) and guest.available < margin(guest) // 2


def after(guest, target):
    """The guest once it has complied: it uses what it used, or all it has where that is less."""
    used = guest.holds - guest.available
    return replace(guest, holds=target, available=max(0, target - used), settled=True)


def settle(machines, host, budget, rounds=200):
    """The machines after the watch has looked at them many times while nothing else happened."""
    for _ in range(rounds):
        decided = decide(machines, host, budget)
        if not any(one.changes for one in decided):
            return machines
        machines = [after(guest, one.target) if one.changes else guest for guest, one in zip(machines, decided, strict=True)]
    raise AssertionError("it never came to rest")


@given(guests(), HOSTS, BUDGETS)
def test_never_above_the_size_and_never_squeezed_below_floor_or_need(machines, host, budget):
    for guest, one in zip(machines, decide(machines, host, budget), strict=True):
        assert one.target <= guest.size
        if one.target < guest.holds:
            assert guest.settled
            assert one.target >= guest.floor
            assert one.target >= need(guest)
        assert one.why.reason
        assert one.name == guest.name


@given(guests(), HOSTS, BUDGETS)
def test_what_holds_less_than_its_floor_gets_it_back(machines, host, budget):
    for guest, one in zip(machines, decide(machines, host, budget), strict=True):
        if movable(guest):
            assert one.target >= min(guest.floor, guest.size)


@given(guests(), HOSTS, BUDGETS)
def test_nothing_is_decided_on_stale_numbers_or_without_a_floor(machines, host, budget):
    for guest, one in zip(machines, decide(machines, host, budget), strict=True):
        assert movable(guest) or not one.changes


@given(guests(), HOSTS, BUDGETS)
def test_a_short_guest_is_never_squeezed_and_gets_what_it_needs(machines, host, budget):
    for guest, one in zip(machines, decide(machines, host, budget), strict=True):
        if short(guest):
            assert one.target >= min(guest.size, max(guest.holds, need(guest)))


@given(guests(), st.integers(0, 64 << 30))
def test_the_sum_grows_beyond_the_budget_for_needs_only(machines, budget):
    decided = decide(machines, None, budget)
    needed = sum(max(one.holds, need(one)) if movable(one) else one.holds for one in machines)
    assert sum(one.target for one in decided) <= max(budget, needed)


@settings(deadline=None)
@given(guests(), st.integers(0, 64 << 30))
def test_the_sum_comes_to_the_budget_where_needs_allow_it_and_stays(machines, budget):
    rested = settle(machines, None, budget)
    held = sum(one.holds for one in rested)
    least = sum(min(one.holds, need(one)) if movable(one) else one.holds for one in rested)
    assert held <= max(budget, least)
    assert not any(one.changes for one in decide(rested, None, budget))


@settings(deadline=None)
@given(guests(), st.integers(0, 64 << 30), st.integers(-5, 5))
def test_a_guest_that_moves_a_little_moves_no_balloon_up_and_down(machines, budget, wave):
    """What the guests use goes up and down by some MiB: nobody is given anything that would be asked back."""
    rested = settle(machines, None, budget)
    moved = [
        replace(one, available=min(one.holds, max(margin(one) // 2, one.available + wave * MIB)))
        if movable(one) and one.available >= margin(one)
        else one
        for one in rested
    ]
    again = decide(moved, None, budget)
    for guest, one in zip(rested, again, strict=True):
        if one.target < guest.holds:
            assert one.target >= guest.holds - abs(wave) * MIB * len(machines) - MIB * len(machines)
        assert one.target <= guest.holds or sum(two.target for two in again) <= budget


@given(st.integers(256 * MIB, 4 << 30), st.integers(0, 16 << 30))
def test_what_the_host_is_given_it_need_not_give_back(reserve, available):
    """After machines gave or took, the host is not on the other side of its band."""
    guest = Guest("g", 8 << 30, 4 << 30, 1 << 30, 2 << 30, 0.0)
    one = decide([guest], Host(available, reserve))[0]
    left = available + guest.holds - one.target
    if one.target > guest.holds:
        assert left >= 2 * reserve
    if one.target < guest.holds:
        assert left <= 2 * reserve


def test_the_idle_one_gives_and_gets_back_what_it_needs():
    size, budget = 512 * MIB, 700 * MIB
    idle, busy = Guest("idle", size, size, 192 * MIB, 440 * MIB, 1.0), Guest("busy", size, size, 192 * MIB, 150 * MIB, 1.0)
    rested = settle([idle, busy], None, budget)
    assert sum(one.holds for one in rested) <= budget
    assert rested[1].holds >= need(busy)
    assert 192 * MIB <= rested[0].holds <= rested[1].holds - 200 * MIB
    loaded = replace(rested[0], available=8 * MIB)
    decided = decide([loaded, rested[1]], None, budget)
    assert decided[0].target >= need(loaded) > loaded.holds
    assert "short" in decided[0].why.reason
    assert "budget of 700M" in decided[0].why.reason


def test_one_step_at_a_time():
    guest = Guest("g", 8 << 30, 8 << 30, 1 << 30, 7 << 30, 0.0)
    assert decide([guest], None, 1 << 30)[0].target == 7 << 30


def test_without_budget_or_need_everything_is_given_back():
    guest = Guest("g", 512 * MIB, 200 * MIB, 192 * MIB, 150 * MIB, 0.0)
    assert decide([guest])[0].target == 512 * MIB
    assert not decide([guest], Host(3 << 29, 1 << 30))[0].changes


def test_a_host_under_pressure_takes_though_enough_seems_available():
    guest = Guest("g", 8 << 30, 8 << 30, 1 << 30, 7 << 30, 0.0)
    assert decide([guest], Host(64 << 30, 1 << 30, 50.0))[0].target < guest.holds
