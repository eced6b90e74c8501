"""What ls and show say of a machine: numbers as numbers, where it is reached, and how large it is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typed import call

from tinamou.machine.listing import addresses_of, described, lines, ports_of, rows, storage_of
from tinamou.monitor.states import State
from tinamou.parts.cpu import CpuSpec
from tinamou.parts.memory import MemorySpec
from tinamou.state import index, machines, networks
from tinamou.state.index import look
from tinamou.state.record import Record, create

SPEC = {
    "cpu": {"count": 4},
    "memory": {"size": "2G"},
    "net": [{"forward": ["8080-8081:80-81", "udp:0.0.0.0:53:53"]}, {"type": "tap", "address": "10.0.0.5/24"}],
}


def made(name: str, spec: dict[str, object]) -> Record:
    with machines.making(name) as folder:
        fields = {"image": "tiny", "arch": "x86_64", "accel": "tcg", "created": time.time() - 100}
        return create(Record(name=name, directory=str(folder), spec=spec, ssh_port=2222, **fields))


@pytest.fixture(autouse=True)
def grown_up(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    monkeypatch.setattr(index, "_YOUNG_NS", -1_000_000_000)


def test_a_machine_at_rest() -> None:
    made("a", SPEC), made("b", {})
    told = rows(look(), [], [])
    assert [(row["name"], row["cpus"], row["memory"], row["addresses"], row["ports"], row["pid"]) for row in told] == [
        ("a", 4, 2 << 30, [], [], None),
        ("b", CpuSpec().count, int(MemorySpec().size), [], [], None),
    ]
    assert all(type(row["age"]) is int and 100 <= row["age"] < 4000 for row in told)
    assert [line[5:7] for line in lines(told)] == [["4", "2.0G"], ["1", "512M"]]


def test_a_running_one_is_reached() -> None:
    record = made("a", SPEC)
    assert ports_of(record) == [
        "127.0.0.1:2222->22/tcp",
        "127.0.0.1:8080->80/tcp",
        "127.0.0.1:8081->81/tcp",
        "0.0.0.0:53->53/udp",
    ]
    assert addresses_of(record) == ["10.0.0.5"]
    [row] = rows(index.Look({}, [], []), [record], [State("unknown", "it is silent")])
    assert (row["state"], row["why"], row["cpus"]) == ("unknown", "it is silent", 4)


def test_addresses_are_looked_for_where_a_card_can_have_one() -> None:
    code = "import sys; from tinamou.machine.listing import addresses_of; from tinamou.state.record import Record; "
    code += "one = Record(name='a', directory='/a', spec={'net': [{'type': 'passt'}, {'model': 'e1000'}]}); "
    code += "print(addresses_of(one), 'tinamou.spec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[] False\n"
    assert addresses_of(made("b", {"net": [{"address": "10.0.0.6/24"}]})) == ["10.0.0.6"]
    on_a_network = made("c", {"net": ["none", {"type": "bridge", "network": "lab"}]})
    networks.put("lab", networks.Member("c.1", "10.64.7.2", "c"))
    assert addresses_of(on_a_network) == ["10.64.7.2"]


def test_everything_about_one() -> None:
    record = made("a", SPEC)
    (record.path / "disk0.qcow2").write_bytes(bytes(1 << 20))
    told = described(record)
    assert (told["cpus"], told["memory"], told["ports"]) == (4, 2 << 30, [])
    assert told["storage"] == storage_of(record) >= 1 << 20
    assert json.loads(call("show", "a", "--json").stdout)["memory"] == 2 << 30
    assert "memory  2.0G" in call("show", "a").stdout


def test_json_has_numbers() -> None:
    made("a", SPEC)
    [row] = json.loads(call("ls", "--json").stdout)
    assert (row["cpus"], row["memory"], type(row["age"])) == (4, 2 << 30, int)


def test_a_description_that_says_odd_things_has_a_row() -> None:
    made("a", {"cpu": 3, "memory": {"size": "many"}, "net": "none"})
    assert [(row["cpus"], row["memory"]) for row in rows(look(), [], [])] == [(1, 0)]
