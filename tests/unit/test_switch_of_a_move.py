"""For how long a move may stop its guest: a small part of what was asked for at first, all of it for one that writes on."""

from __future__ import annotations

import pytest

from tinamou.snapshots import outgoing


@pytest.mark.parametrize("downtime", [1, 300, 60_000])
def test_what_is_left_over_may_grow_from_pass_to_pass(downtime: int) -> None:
    parts = [outgoing._part(downtime, rounds) for rounds in range(20)]
    assert parts == sorted(parts)
    assert parts[-1] == downtime
    assert 1 <= parts[0] <= max(1, downtime // 20)
