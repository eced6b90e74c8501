"""A machine among the others: found, entered under a first name of its own, seen in the index, and gone with all it had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinamou.errors import StateError
from tinamou.state import machines, networks
from tinamou.state.allowed import of_root
from tinamou.state.index import look, shape_of
from tinamou.state.machines import making
from tinamou.state.record import Record, create, read


def made(name: str, **fields: object) -> Record:
    with making(name) as folder:
        return create(Record(name=name, directory=str(folder), spec={"name": name}, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("seen", [False, True], ids=["looked for", "seen"])
def test_two_that_were_a_third_first_have_first_names_of_their_own(state: Path, seen: bool) -> None:
    made("web")
    with making("a") as a, making("b") as b:
        records = [Record(one.name, str(one), {"name": one.name}, former=["web"]) for one in (a, b)]
        told = machines.entered(*records, found=look() if seen else None)
    assert [one.identity for one in told] == ["web~2", "web~3"]
    assert [read(one.path) for one in told] == told


def test_one_is_found_by_its_name_or_is_not_there(state: Path) -> None:
    web = made("web")
    assert machines.find_usable("web") == machines.find("web") == web
    for wrong in ("", "wbe", "../machines/web"):
        with pytest.raises(StateError, match="there is no machine named"):
            machines.find_usable(wrong)


def test_awake_are_those_that_are_not_known_to_be_at_rest(state: Path) -> None:
    made("web", owner_pid=os.getpid())
    assert [one.name for one in machines.awake(look())] == [one.name for one in machines.awake()] == ["web"]


def test_a_removed_machine_gives_its_addresses_back(state: Path) -> None:
    web, other = made("web"), made("other")
    taken = networks.lease("lan", "10.9.8.0/29", "web.0")
    networks.lease("lan", "10.9.8.0/29", "other.0")
    machines.remove(web.path)
    assert networks.lease("lan", "10.9.8.0/29", "other.1", taken[1]) == taken
    machines.remove(other.path)
    assert not list(networks.names())


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ({}, (0, "")),
        ({"cpu": {}, "memory": {}}, (0, "")),
        ({"cpu": {"count": 3}, "memory": {"size": "1G"}}, (3, "1G")),
        ({"cpu": {"count": "3"}, "memory": 5}, (0, "")),
    ],
    ids=["nothing", "tables", "both", "odd"],
)
def test_what_was_asked_for_is_in_the_index(spec: dict[str, object], shape: tuple[int, str]) -> None:
    assert shape_of(Record("web", "/web", spec)) == shape


@pytest.mark.root
def test_roots_machine_is_found_by_a_name_and_by_no_path(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made("web", resident=True)
    monkeypatch.setenv("TINAMOU_OTHERS", str(state))
    assert of_root("web") is None  # root has its own
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = of_root("web")
    assert found is not None
    assert (found.name, found.resident) == ("web", False)
    assert [of_root(one) for one in ("", "../machines/web", "other")] == [None, None, None]


@pytest.mark.root
def test_a_machine_starts_with_the_user_id_it_has(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with making("web") as folder:
        uid = machines.lease_uid(folder, look())
        assert uid is not None
        assert (machines.uid_again(folder, uid), machines.uid_again(folder, None)) == (uid, None)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert (machines.uid_again(folder, 7), machines.lease_uid(folder)) == (7, None)
