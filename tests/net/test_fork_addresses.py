"""Forks on networks where other machines are too: each guest has an address of its own, or none is started."""

from __future__ import annotations

import ipaddress
import json

import pytest
from labs import Lab

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

NETWORK = "type=bridge,network=lab,subnet=10.8.0.0/24"
FIXED = "type=bridge,bridge=br0,address=10.9.0.1/24"


def made(lab: Lab) -> list[str]:
    """The machines and checkpoints there are."""
    folders = (lab.state / "machines", lab.state / "checkpoints")
    return sorted(path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir())


def a_bridge(lab: Lab) -> None:
    """Bridge br0 of the host, where the host is 10.9.0.254."""
    lab.ip("link add br0 type bridge")
    lab.ip("address add 10.9.0.254/24 dev br0")
    lab.ip("link set br0 up")


def shown(lab: Lab, name: str) -> list[str]:
    """The addresses that ``ls`` says a machine has."""
    return next(row["addresses"] for row in json.loads(lab.tinamou("ls", "--json").stdout) if row["name"] == name)


def of_guest(lab: Lab, name: str) -> set[str]:
    """The addresses its guest has, without those of links."""
    lab.address6(name, "fd")
    words = lab.guest(name, "ip -o addr show eth0 scope global | grep -o 'inet6* [0-9a-f.:]*' | cut -d' ' -f2")
    return set(words.split())


def test_forks_ask_for_addresses_of_their_own(lab: Lab):
    lab.start("one", NETWORK)
    source = lab.address("one")
    assert of_guest(lab, "one") == set(shown(lab, "one"))
    done = lab.tinamou("fork", "one", "-n", "2", "--json")
    told = json.loads(done.stdout)
    assert (told["notes"], "address" in done.stderr) == ([], False)
    forks = {name: of_guest(lab, name) for name in told["forks"]}
    assert forks == {name: set(shown(lab, name)) for name in forks}
    first, second = forks
    assert not forks[first] & forks[second] and source not in forks[first] | forks[second]
    all_of = f"for host in 10.8.0.1 {source} {' '.join(forks[first] | forks[second])}; do ping -c 2 -W 2 $host || exit; done"
    for name in ("one", first, second):
        assert lab.guest(name, all_of).count(" 0% packet loss") == 6, name
    assert lab.guest(first, "ip route | grep -c '^default via 10.8.0.1 '").strip() == "1"
    lab.tinamou("rm", "-f", "one", first, second)
    assert lab.traces()["links"] == "lo"


def test_a_guest_that_asks_for_no_address_is_named(lab: Lab):
    """The negative of the test above: a client that runs is started again; without one the address stays, and it is said."""
    lab.start("one", NETWORK)
    source = lab.address("one")
    client = "udhcpc -b -i eth0 -s /lib/tinamou/dhcp -p /run/client >/dev/null 2>&1 </dev/null"
    lab.guest("one", f"mv /lib/tinamou/network /lib/tinamou/other; {client}")
    told = json.loads(lab.tinamou("fork", "one", "--json").stdout)
    [asking] = told["forks"]
    assert told["notes"] == []
    assert of_guest(lab, asking) == set(shown(lab, asking))
    assert lab.pings(asking, source)
    assert lab.guest(asking, "ps -o args | grep -c '^udhcpc .*eth0'").strip() == "1"
    lab.guest("one", "kill $(cat /run/client)")
    done = lab.tinamou("fork", "one", "--json")
    told = json.loads(done.stdout)
    [fork], [note] = told["forks"], told["notes"]
    [own, _] = shown(lab, fork)
    assert f"the guest of {fork} has the address {source} of one for net0 on network lab" in note
    assert f"and asks for no other; have it ask by DHCP, or set {own} in the guest" in note
    assert note in " ".join(done.stderr.split())
    assert lab.address(fork) == source != own
    assert not lab.pings(fork, "10.8.0.1")
    lab.tinamou("rm", "-f", "one", asking, fork)


def test_a_network_that_gives_no_address_is_named(lab: Lab):
    a_bridge(lab)
    lab.start("one", "type=bridge,bridge=br0")
    lab.wait("one", "killall udhcpc && sleep 1 && ip addr add 10.9.0.1/24 dev eth0")
    done = lab.tinamou("fork", "one", "--json")
    [fork], [note] = (json.loads(done.stdout)[key] for key in ("forks", "notes"))
    assert f"the guest of {fork} has no address for net0 on bridge br0: no DHCP server answered" in note
    assert lab.guest(fork, "ip -4 -o addr show eth0").strip() == ""
    assert lab.run("ping", "-c", "1", "-W", "2", "10.9.0.1", check=False).returncode == 0
    lab.tinamou("rm", "-f", "one", fork)


def test_a_fixed_address_is_one_machines(lab: Lab):
    a_bridge(lab)
    lab.start("one", FIXED)
    before, there = lab.traces(), made(lab)
    refused = lab.tinamou("fork", "one", check=False)
    assert refused.returncode == 118
    said = " ".join(refused.stderr.split())
    assert "no fork of one can be started" in said
    assert "net[0].address = '10.9.0.1/24': one runs with it on bridge br0 — leave it out" in said
    assert (lab.traces(), made(lab)) == (before, there)
    lab.tinamou("checkpoint", "one", "ready")
    assert "one runs with it on bridge br0" in " ".join(lab.tinamou("fork", "ready", check=False).stderr.split())
    lab.tinamou("rm", "-f", "one")
    assert "2 machines on bridge br0 cannot have the same address" in " ".join(
        lab.tinamou("fork", "ready", "-n", "2", check=False).stderr.split()
    )
    assert made(lab) == ["ready"]
    done = lab.tinamou("fork", "ready")
    fork = done.stdout.strip()
    assert "address" not in done.stderr
    assert lab.address(fork) == "10.9.0.1"
    assert lab.reaches(fork, "10.9.0.254")
    mac = lab.guest(fork, "cat /sys/class/net/eth0/address").strip().replace(":", "")
    assert f"{int(ipaddress.ip_address(lab.address6(fork, 'fe80'))):x}"[-6:] == mac[-6:]
    again = " ".join(lab.tinamou("fork", "ready", check=False).stderr.split())
    assert f"{fork} runs with it on bridge br0" in again
    lab.tinamou("rm", "-f", fork)
    lab.tinamou("checkpoints", "restore", "ready")
    assert lab.reaches("one", "10.9.0.254")
    lab.tinamou("rm", "-f", "one")
    lab.tinamou("checkpoints", "rm", "-f", "ready")
    assert made(lab) == []


def test_guests_with_networks_of_their_own_are_asked_nothing(lab: Lab):
    """The negative: the same fixed address behind QEMU's own network is each guest's own."""
    lab.start("one", "type=user,address=10.0.2.77/24")
    done = lab.tinamou("fork", "one", "-n", "2", "--json")
    told = json.loads(done.stdout)
    assert told["notes"] == []
    assert [lab.address(fork) for fork in told["forks"]] == ["10.0.2.77"] * 2
    lab.tinamou("rm", "-f", "one", *told["forks"])
