"""The journal: what was taken is given back once, newest first, whatever happened in between."""

import pytest

from tinamou.prepare.journal import Journal


def test_open_until_given(tmp_path):
    journal = Journal(tmp_path)
    first = journal.take("tap", name="t0")
    second = journal.take("tap", name="t1")
    journal.give(first)
    assert [entry["name"] for entry in Journal(tmp_path).open_entries().values()] == ["t1"]
    journal.give(second)
    assert Journal(tmp_path).open_entries() == {}


def test_newest_first_and_failures_stay_open(tmp_path):
    journal = Journal(tmp_path)
    for name in ("a", "b", "c"):
        journal.take("thing", name=name)
    order = []

    def undo(entry):
        order.append(entry["name"])
        if entry["name"] == "b":
            raise OSError("busy")

    failed = journal.give_back(undo)
    assert order == ["c", "b", "a"]
    assert [entry["name"] for entry, _ in failed] == ["b"]
    assert [entry["name"] for entry in journal.open_entries().values()] == ["b"]


def test_a_torn_last_line_is_ignored(tmp_path):
    journal = Journal(tmp_path)
    journal.take("thing", name="a")
    with journal.path.open("a") as file:
        file.write('{"took": 2, "kind": "thi')
    assert [entry["name"] for entry in journal.open_entries().values()] == ["a"]
    assert journal.take("thing", name="b") == 2
    assert [entry["name"] for entry in journal.open_entries().values()] == ["a", "b"]


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_written_means_nothing_open(tmp_path, count):
    journal = Journal(tmp_path)
    for _ in range(count):
        journal.give(journal.take("thing"))
    assert journal.open_entries() == {}


def test_numbers_grow_however_long_the_journal_is(tmp_path):
    journal = Journal(tmp_path)
    numbers = [journal.take("thing") for _ in range(3)]
    for number in numbers:
        for _ in range(200):
            journal.give(number)
    assert journal.take("thing", text="x" * 9000) == 4
    assert journal.take("thing") == 5
