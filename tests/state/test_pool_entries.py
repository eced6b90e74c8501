"""The folders of pools: made whole, read back, removed when their keeper is gone."""

from __future__ import annotations

import dataclasses
import os
import time

import pytest

from tinamou.errors import StateError
from tinamou.state import pools
from tinamou.state.pools import PoolEntry
from tinamou.system.spawn import process_of


def entry(name: str = "web", *, kept: bool = True) -> PoolEntry:
    me = process_of(os.getpid())
    return PoolEntry(name, 2, 12.5, (me.pid, me.started if kept else me.started + 1), {"cpus": 2}, bound="500M", key="k")


def test_made_whole_and_read_back() -> None:
    pools.create(entry())
    found = pools.find("web")
    assert found == entry() and found.kept and pools.every() == [found]
    assert found.directory == pools.pools_dir() / "web" and found.socket == found.directory / "take.sock"
    assert found.directory.stat().st_mode & 0o777 == 0o700
    pools.write(dataclasses.replace(found, size=5))
    assert pools.find("web").size == 5
    assert [path.name for path in pools.pools_dir().iterdir()] == ["web"]


def test_a_name_is_taken_once() -> None:
    pools.create(entry())
    with pytest.raises(StateError, match="there is a pool web already"):
        pools.create(dataclasses.replace(entry(), size=9))
    assert pools.find("web").size == 2
    assert [path.name for path in pools.pools_dir().iterdir()] == ["web"]


@pytest.mark.parametrize("name", ["", "none", "../machines", "web/x"])
def test_there_is_none(name: str) -> None:
    pools.create(entry())
    with pytest.raises(StateError, match="there is no pool"):
        pools.find(name)


def test_cleared_when_its_keeper_is_gone() -> None:
    pools.create(entry())
    pools.create(entry("left", kept=False))
    assert pools.clear() == ["the keeper of pool left was killed; the pool and what waited in it are gone"]
    assert [one.name for one in pools.every()] == ["web"] and not pools.folder("left").exists()
    pools.remove("web")
    assert pools.every() == [] and pools.read("web") is None


def test_a_half_is_cleared_once_nobody_can_be_at_it() -> None:
    pools.create(entry())
    half, fresh = pools.pools_dir() / ".half-1", pools.pools_dir() / "fresh"
    half.mkdir()
    fresh.mkdir()
    os.utime(half, times=(0, time.time() - 24 * 3600))
    assert pools.clear() == []
    assert sorted(path.name for path in pools.pools_dir().iterdir()) == ["fresh", "web"]


def test_a_damaged_entry_is_told_and_stays() -> None:
    pools.create(entry())
    pools.create(entry("bad"))
    (pools.folder("bad") / "pool.json").write_text('{"name": "bad"}')
    with pytest.raises(StateError, match="the entry of pool bad is damaged"):
        pools.read("bad")
    [told] = pools.clear()
    assert told.startswith("the entry of pool bad is damaged") and told.endswith("tinamou pool rm bad")
    assert [one.name for one in pools.every()] == ["web"]
