"""Network cards that come and go while the machine runs, on every backend; rates that change at once; what was counted."""

from __future__ import annotations

import json

import pytest
from labs import Lab

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]


DEVICE = "grep -l %s /sys/class/net/*/address | cut -d/ -f5"
"""The guest's name of the interface with an address."""


def cards(lab: Lab, name: str) -> dict[int, dict[str, object]]:
    found = json.loads(lab.tinamou("net", "ls", "--json").stdout)["interfaces"]
    return {row["nic"]: row for row in found if row["machine"] == name}


def test_cards_of_every_backend_come_and_go(lab: Lab):
    lab.outside()
    lab.ip("link add br0 type bridge")
    lab.ip("address add 10.9.3.254/24 dev br0")
    lab.ip("link set br0 up")
    lab.start("one", "type=bridge,network=lab")
    more = ("--net", "type=bridge,network=second", "--net", "user", "--set", "devices.hotplug=6")
    lab.start("two", "type=bridge,network=lab", *more)
    before = lab.traces()
    net1 = "type=stream,listen=true,address=10.9.5.1/24,socket=" + str(lab.state / "cable")
    lab.tinamou("net", "add", "one", net1)
    wishes = (
        "type=bridge,network=third",
        "type=bridge,bridge=br0,address=10.9.3.1/24",
        "type=tap",
        "passt",
        "passt",
        f"type=stream,address=10.9.5.2/24,socket={lab.state / 'cable'}",
    )
    for number, wish in enumerate(wishes, 3):
        assert lab.tinamou("net", "add", "two", wish).stdout.strip() == f"net{number}"
    full = lab.tinamou("net", "add", "two", "user", check=False)
    assert full.returncode == 115
    assert "slots are taken" in full.stderr
    assert lab.run("ping", "-c", "2", "-W", "5", "10.9.3.1", check=False).returncode == 0
    assert lab.reaches("two", "10.9.5.1")
    asks = "for p in $(pidof udhcpc); do tr '\\0' ' ' </proc/$p/cmdline; done"
    fixed = DEVICE % str(cards(lab, "two")[4]["mac"])
    assert f"-i {lab.guest('two', fixed).strip()} " not in lab.guest("two", asks)
    lab.wait("two", "ip addr | grep -q 'inet 10.0.8.15/24' && ip addr | grep -q 'inet 10.0.9.15/24'")
    assert lab.run("ping", "-c", "2", "-W", "5", str(cards(lab, "two")[3]["address"]), check=False).returncode == 0
    for number in range(3, 9):
        lab.tinamou("net", "rm", "two", f"net{number}")
    assert lab.guest("two", "ls -d /sys/class/net/eth* | wc -l").strip() == "3"
    lab.tinamou("net", "rm", "one", "net1")
    assert lab.traces() == before
    assert list(cards(lab, "two")) == [0, 1, 2]
    journal = [json.loads(line) for line in (lab.state / "machines/two/journal.jsonl").read_text().splitlines() if line]
    gone = {entry["gave"] for entry in journal if "gave" in entry}
    still = [entry for entry in journal if "took" in entry and entry["took"] not in gone]
    assert {entry["kind"] for entry in still} == {"value", "network", "link", "rules"}
    refused = lab.tinamou("net", "rm", "two", "net0", check=False)
    assert refused.returncode == 118
    assert "root bus" in refused.stderr


def test_what_was_plugged_in_is_there_after_the_next_start(lab: Lab):
    lab.start("one", "user")
    lab.tinamou("net", "add", "one", "type=bridge,network=lab,rate_in=80Mbit")
    lab.tinamou("net", "add", "one", "type=bridge,network=other")
    lab.tinamou("net", "rm", "one", "net1")
    known = cards(lab, "one")
    assert list(known) == [0, 2]
    own = str(known[2]["mac"])
    name = DEVICE % own
    before = lab.guest("one", f"readlink -f /sys/class/net/$({name})/device")
    lab.tinamou("stop", "one")
    added = lab.tinamou("net", "add", "one", "type=bridge,network=lab").stdout
    assert "from the next start on" in added
    lab.tinamou("start", "one")
    now = cards(lab, "one")
    assert now[2]["mac"] == own
    assert lab.address("one", lab.wait("one", f"{name} | grep .").strip()) == known[2]["address"]
    assert lab.guest("one", f"readlink -f /sys/class/net/$({name})/device").split("/")[4] == before.split("/")[4]
    assert lab.address("one", lab.wait("one", f"{DEVICE % now[3]['mac']} | grep .").strip()) == now[3]["address"]


def test_a_card_that_cannot_be_leaves_nothing(lab: Lab):
    lab.start("one", "user")
    before = lab.traces()
    entry = (lab.state / "machines/one/machine.json").read_text()
    for wish, code, word in (
        ("type=bridge,bridge=br7", 112, "no such interface"),
        ("type=bridge,network=lab,rate_in=fast", 110, "not a rate"),
        ("type=bridge,network=lab,subnet=192.0.2.0/24,address=198.51.100.7", 118, "is no address of network lab"),
        (f"type=stream,socket={lab.state}/nobody", 113, "there is nothing of that name"),
    ):
        done = lab.tinamou("net", "add", "one", wish, check=False)
        assert done.returncode == code, done.stderr
        assert word in done.stderr
        assert lab.traces() == before, wish
    assert (lab.state / "machines/one/machine.json").read_text() == entry


def test_rates_change_at_once_and_drops_are_counted(lab: Lab):
    lab.start("one", "type=bridge,network=lab")
    lab.start("two", "type=bridge,network=lab")
    two = lab.address("two")
    assert lab.reaches("one", two)
    assert _filtered(lab, "two") == {"forged": 0}
    lab.tinamou("net", "rate", "two", "--in", "1Mbit")
    flood = f"ping -q -c 400 -i 0.001 -s 20000 {two}"
    lab.guest("one", flood, check=False)
    assert _filtered(lab, "two")["rate"] > 0
    lab.tinamou("net", "rate", "two", "--in", "off")
    assert "rate" not in _filtered(lab, "two")
    rows = json.loads(lab.tinamou("net", "stats", "two", "--json").stdout)
    assert all(row["packets in"] > 10 for row in rows if row["seen"] != "filter")
    bad = lab.tinamou("net", "rate", "two", "--in", "fast", check=False)
    assert bad.returncode == 110
    lab.start("three", "user")
    none = lab.tinamou("net", "rate", "three", "--in", "1Mbit", check=False)
    assert none.returncode == 110
    assert "no interface of its own" in none.stderr


def _filtered(lab: Lab, name: str) -> dict[str, int]:
    rows = json.loads(lab.tinamou("net", "stats", name, "--json").stdout)
    return next(row["dropped"] for row in rows if row["seen"] == "filter")
