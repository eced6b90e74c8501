"""Forks of a running database lose nothing, and neither does their source (bench/database.py says what is asked)."""

from __future__ import annotations

import asyncio
import os

import pytest

from bench.database import Books, measure

FORKS = int(os.environ.get("TINAMOU_DATABASE_FORKS", "3"))
"""How many moments; 10 in a thorough run."""


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_database_under_load_is_forked_whole() -> None:
    outcome = asyncio.run(measure(FORKS))
    assert [fault for pair in outcome.forks for books in pair for fault in books.faults] == []
    assert outcome.source.faults == []
    assert len(outcome.forks) == FORKS
    counts = [first.rows for first, _ in outcome.forks]
    assert counts == sorted(counts)
    assert outcome.source.rows > counts[-1]


@pytest.mark.parametrize(
    ("books", "fault"),
    [
        (Books(1, 1, 1, 2, 9, 9, 0, 0, 0), "sums differ"),
        (Books(1, 1, 1, 1, 9, 9, 1, 0, 0), "1 are lost"),
        (Books(1, 1, 1, 1, 9, 0, 0, 0, 0), "of 0 acknowledged"),
        (Books(1, 1, 1, 1, 0, 9, 0, 0, 0), "0 transactions"),
        (Books(1, 1, 1, 1, 9, 9, 0, 2, 0), "damage"),
    ],
)
def test_the_check_sees_faults(books: Books, fault: str) -> None:
    assert len(books.faults) == 1
    assert fault in books.faults[0]
