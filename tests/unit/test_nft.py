"""Counters of the packet filter on hosts with and without one."""

import json

import pytest

from tinamou.system import nft

RULE = {"chain": "in-tm-1", "comment": "forged", "expr": [{"counter": {"packets": 3, "bytes": 180}}]}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "run", lambda *_, **__: json.dumps({"nftables": [{"rule": RULE}, {"rule": RULE}]}))


def test_dropped_packets_are_counted_by_reason(table: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "find_tool", lambda name: f"/usr/sbin/{name}")
    assert nft.dropped("tm-1") == {"forged": 6}
    assert nft.dropped("tm-2") == {}


def test_a_host_without_nft_has_dropped_nothing(table: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "find_tool", lambda _: None)
    assert nft.dropped("tm-1") == {}


def test_rules_that_cannot_be_removed_are_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody took nft away while rules of a machine stand: giving back fails, and is tried again."""
    monkeypatch.setattr(nft, "find_tool", lambda _: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FileNotFoundError):
        nft.remove("netdev", "tm-1")
