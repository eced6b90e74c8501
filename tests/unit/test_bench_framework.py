"""The bench computes medians, ratios, differences and bars right, whatever the clock says."""

from __future__ import annotations

import json

import pytest

from bench.framework import AtLeast, AtMost, Difference, Missing, Table, Way, measure, percentile, summary
from bench.report import as_json, as_text


def _way(name, values):
    given = iter(values)
    return Way(name, lambda: next(given))


def _table(**more):
    slow = _way("slow", [{"": 4.0}, {"": 6.0}, {"": 5.0}])
    fast = _way("fast", [{"": 1.0, "part": 0.25}, {"": 9.0, "part": 0.5}, {"": 2.0, "part": 0.125}])
    return Table("speed", [slow, fast], "slow", **more)


def _rows(result):
    return {row.name: row for row in summary(result)}


def test_medians_and_ratios():
    rows = _rows(measure(_table(), rounds=3))
    assert (rows["slow"].best, rows["slow"].median, rows["slow"].ratio) == (4.0, 5.0, 1.0)
    assert (rows["fast"].best, rows["fast"].median) == (1.0, 2.0)
    assert (rows["fast"].ratio, rows["fast"].best_ratio) == (2.5, 4.0)
    assert (rows["fast: part"].median, rows["fast: part"].ratio) == (0.25, None)
    assert rows["fast"].p99 is None


def test_measures_are_compared_with_the_same_measure_of_the_baseline():
    ways = [_way("slow", [{"": 4.0, "part": 3.0}]), _way("fast", [{"": 2.0, "part": 1.0, "own": 1.0}])]
    rows = _rows(measure(Table("t", ways, "slow"), rounds=1))
    assert (rows["fast"].ratio, rows["fast: part"].ratio, rows["fast: own"].ratio) == (2.0, 3.0, None)


def test_ways_take_turns():
    heard = []
    ways = [Way(name, lambda name=name: heard.append(name) or {"": 1.0}) for name in "ABC"]
    measure(Table("turns", ways, "A"), rounds=2)
    assert heard == list("ABCABC")


def test_differences_are_of_the_same_round():
    result = measure(_table(differences=[Difference("more", "slow", "fast")]), rounds=3)
    assert result.of("more") == [3.0, -3.0, 3.0]
    assert _rows(result)["more"].median == 3.0


def test_a_difference_needs_both_figures_of_its_round():
    def sometimes():
        if next(turn) == 1:
            raise OSError("away")
        return {"": 1.0}

    turn = iter(range(3))
    ways = [_way("whole", [{"": 3.0}, {"": 4.0}, {"": 5.0}]), Way("part", sometimes)]
    result = measure(Table("t", ways, "whole", differences=[Difference("rest", "whole", "part")]), rounds=3)
    assert result.of("rest") == [2.0, 4.0]
    assert result.failures == {"part": ["OSError: away"]}
    assert "failed 1 times: part: OSError: away" in as_text(result)


@pytest.mark.parametrize(
    ("bar", "kept"),
    [
        (AtMost("fast", 2.0), True),
        (AtMost("fast", 1.9), False),
        (AtLeast("fast", 2.5, "slow"), True),
        (AtLeast("fast", 2.6, "slow"), False),
    ],
)
def test_bars(bar, kept):
    result = measure(_table(bars=[bar]), rounds=3)
    assert [one for _, one in _rows(result)["fast"].bars] == [kept]
    assert ("pass (" in as_text(result), "FAIL (" in as_text(result)) == (kept, not kept)


def test_a_bar_against_nothing_is_not_judged():
    assert _rows(measure(_table(bars=[AtLeast("fast", 1.0, "absent")]), rounds=3))["fast"].bars == ()


def test_no_round_is_begun_without_time():
    assert measure(_table(), rounds=3, seconds=0.0).rounds == 0


def test_percentile_is_the_nearest_rank():
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile([7.0], 0.99) == 7.0
    many = measure(Table("many", [_way("a", [{"": float(n)} for n in range(200)])], "a"), rounds=200)
    assert _rows(many)["a"].p99 == 197.0


def test_missing_ways_are_named_and_json_holds_every_sample():
    result = measure(_table(missing=[Missing("peer", "not installed")]), rounds=3)
    assert "not measured: peer: not installed" in as_text(result)
    told = json.loads(json.dumps(as_json(result)))
    assert told["rows"][0]["samples"] == [4.0, 6.0, 5.0]
    assert told["missing"] == {"peer": "not installed"}
