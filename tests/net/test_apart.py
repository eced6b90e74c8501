"""What a guest may not do: pose as another, reach what it is kept from; and what is left when machines die: nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs import OUTSIDE, Lab
from switches import Switch
from typed import eventually

pytestmark = [pytest.mark.vm, pytest.mark.root]

WATCHED = ("dnsmasq", "passt", "passt.avx2", "qemu-system-x86")
"""Processes a machine may leave behind, as the kernel names them."""

COUNT = int(os.environ.get("TINAMOU_NET_KILLS", "6"))
"""Machines of the test that kills at random; 50 for a thorough run."""


def poses_as(lab: Lab, name: str, what: str) -> None:
    lab.guest(name, f"ip link set eth0 down; {what}; ip link set eth0 up")


def only(lab: Lab, name: str, address: str) -> None:
    """Give a guest this address and no other: taking the first away would take later ones of its subnet along."""
    lab.guest(name, f"ip -4 addr flush dev eth0; ip addr add {address}/24 dev eth0")
    assert lab.address(name) == address


@pytest.mark.slow
def test_forged_addresses_do_not_pass(lab: Lab):
    for name in ("one", "two"):
        lab.start(name, "type=bridge,network=lab,subnet=10.9.0.0/24")
    one, two = lab.address("one"), lab.address("two")
    gateway = "10.9.0.1"
    assert lab.reaches("one", two)
    only(lab, "one", "10.9.0.77")
    assert not lab.pings("one", two)
    only(lab, "one", gateway)
    lab.guest("one", f"arping -U -c 3 -I eth0 {gateway}", check=False)
    assert lab.reaches("two", gateway)
    own = lab.guest("one", "cat /sys/class/net/eth0/address").strip()
    assert own not in lab.guest("two", f"grep '^{gateway} ' /proc/net/arp")
    only(lab, "one", one)
    assert lab.reaches("one", two)
    poses_as(lab, "one", "ip link set eth0 address 52:54:00:aa:bb:cc")
    only(lab, "one", one)
    assert not lab.pings("one", two)


@pytest.mark.slow
def test_without_the_filter_forging_works(lab: Lab):
    """The negative of the test above: it is the filter that stops them."""
    for name in ("one", "two"):
        lab.start(name, "type=bridge,network=lab,subnet=10.9.0.0/24,anti_spoof=false")
    lab.address("one")
    two = lab.address("two")
    only(lab, "one", "10.9.0.77")
    assert lab.reaches("one", two)
    poses_as(lab, "one", "ip link set eth0 address 52:54:00:aa:bb:cc")
    assert lab.reaches("one", two)


@pytest.mark.slow
def test_an_isolated_network_reaches_nothing(lab: Lab):
    lab.outside()
    lab.far("sh", "-c", "ip route add 10.9.0.0/24 via 192.0.2.2")
    lab.start("one", "type=bridge,network=lab,subnet=10.9.0.0/24,isolated=true")
    lab.start("two", "type=bridge,network=lab,isolated=true,peers=false")
    lab.start("three", "type=bridge,network=lab,isolated=true,peers=false")
    lab.start("alone", "type=user,isolated=true")
    one, two, three = (lab.address(name) for name in ("one", "two", "three"))
    assert lab.reaches("one", two)
    assert not lab.pings("two", three)
    assert lab.guest("one", "ip route | grep -c default", check=False).strip() == "0"
    lab.guest("one", "ip route add default via 10.9.0.1")
    for host in (OUTSIDE, "192.0.2.2", "10.9.0.1"):
        assert not lab.pings("one", host), host
    assert lab.run("ip", "netns", "exec", f"{lab.name}-far", "ping", "-c", "1", "-W", "2", one, check=False).returncode != 0
    assert lab.address("alone") == "10.0.2.15"
    assert not lab.pings("alone", OUTSIDE)


@pytest.mark.slow
def test_allow_lists_and_rates(lab: Lab):
    lab.start("one", "type=bridge,network=lab,allow_out=icmp,allow_out=tcp:5001,allow_in=tcp:5002")
    lab.start("two", "type=bridge,network=lab,rate_in=8Mbit")
    one, two = lab.address("one"), lab.address("two")

    def heard(sender: str, receiver: str, host: str, port: int) -> bool:
        lab.guest(receiver, f"rm -f /tmp/p; (setsid nc -l -p {port} -e touch /tmp/p) >/dev/null 2>&1 </dev/null &")
        lab.guest(sender, f"nc -w 2 {host} {port} </dev/null", check=False)
        return lab.guest(receiver, "test -e /tmp/p && echo yes", check=False).strip() == "yes"

    assert lab.reaches("one", two)
    assert not lab.pings("two", one)
    assert heard("one", "two", two, 5001)
    assert not heard("one", "two", two, 5003)
    assert heard("two", "one", one, 5002)
    assert not heard("two", "one", one, 5001)


def of_others(lab: Lab, switch: Switch) -> dict[str, str]:
    """What a machine may leave, or change, in the namespace and in the switch."""
    rows = lab.run("ovs-vsctl", "--columns=name,type,external_ids", "list", "interface").stdout
    names = [comm for pid in lab.run("ip", "netns", "pids", lab.name).stdout.split() if (comm := _comm(pid)) in WATCHED]
    rules = lab.run("bridge", "-details", "link", "show").stdout
    switched = {"ports": " ".join(switch.ports()), "interfaces": rows, "qos": switch.ctl("list", "qos")}
    return {**lab.traces(), **switched, "processes": " ".join(sorted(names)), "bridge ports": rules}


@pytest.mark.slow
def test_killed_at_random_nothing_is_left(lab: Lab, switch: Switch):
    lab.outside()
    lab.ip("link add mine type bridge")
    lab.ip("link add port type veth peer name base")
    for line in ("port master mine", "port up", "base up", "mine up"):
        lab.ip(f"link set {line}")
    lab.run("nft", "-f", "-", input="table inet mine {\nchain c {\ntype filter hook forward priority 0;\n}\n}\n")
    switch.ctl("add-port", "sw0", "theirs", "--", "set", "interface", "theirs", "type=internal", "external_ids:x=y")
    words = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=5399", "--interface=lo"]
    foreign = subprocess.Popen(["ip", "netns", "exec", lab.name, *words, "--bind-interfaces"])
    time.sleep(0.5)
    before = of_others(lab, switch)
    assert "dnsmasq" in before["processes"]
    try:
        taken = _killed(lab)
        assert of_others(lab, switch) == before
    finally:
        foreign.kill()
        foreign.wait()
    assert [path.name for path in (lab.state / "machines").iterdir()] == []
    assert taken["link"] or taken["network"], "no machine was killed with an interface of the host's"
    assert COUNT < 50 or taken.keys() >= {"link", "network", "rules", "ovs-port", "helper"}, taken


def _killed(lab: Lab) -> Counter[str]:
    """Start and kill; returns how many machines had what of the host when they were killed."""
    seed = random.randrange(1 << 30)
    print(f"random seed {seed}")
    dice = random.Random(seed)
    kinds = (
        "type=bridge,network=lab",
        "type=bridge,network=other,isolated=true",
        "passt",
        "type=bridge,bridge=mine",
        "type=macvtap,interface=base",
        "type=ovs,bridge=sw0,vlan=5,rate_in=8Mbit",
        "tap",
        "user",
    )
    running: dict[str, subprocess.Popen[bytes]] = {}
    taken: Counter[str] = Counter()
    for number in range(COUNT):
        words = ["run", "tiny", "--name", f"m{number}", "--net", dice.choice(kinds), "--memory", "128M", "--", "sleep", "60"]
        argv = ["ip", "netns", "exec", lab.name, sys.executable, "-m", "tinamou", *words]
        quiet = subprocess.DEVNULL
        running[f"m{number}"] = subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet)
        time.sleep(dice.random() * 1.5)
        if len(running) >= 3 or dice.random() < 0.4:
            taken.update(_kill_one(lab, running, dice))
    while running:
        taken.update(_kill_one(lab, running, dice))
    print(f"machines killed while they had: {dict(taken)}")
    lab.tinamou("ls")
    lab.tinamou("ls")
    return taken


def _comm(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _kill_one(lab: Lab, running: dict[str, subprocess.Popen[bytes]], dice: random.Random) -> set[str]:
    """Kill tinamou, or its QEMU, or both, without mercy; returns what the machine had taken by then."""
    name = dice.choice(list(running))
    victim = running.pop(name)
    journal = lab.state / "machines" / name / "journal.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    how = dice.choice(("tinamou", "qemu", "term"))
    if how == "qemu":
        children = subprocess.run(
            ["pgrep", "-P", str(victim.pid), "-f", "qemu"], capture_output=True, text=True, check=False
        )
        for pid in children.stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.2)
    victim.send_signal(signal.SIGTERM if how == "term" else signal.SIGKILL)
    victim.wait(30)
    return {entry["kind"] for line in lines if line.endswith("}") and "kind" in (entry := json.loads(line))}


def fails(lab: Lab, *argv: str, code: int) -> str:
    done = lab.tinamou("run", "tiny", *argv, "--", "true", check=False)
    assert done.returncode == code, done.stderr
    assert "fix: " in done.stderr or " — " in done.stderr
    assert [path.name for path in (lab.state / "machines").glob("*")] == []
    return done.stderr


def test_errors_say_what_is_wrong_and_undo_it(lab: Lab):
    before = lab.traces()
    listener = subprocess.Popen(["ip", "netns", "exec", lab.name, "nc", "-l", "-s", "127.0.0.1", "-p", "18080"])
    try:
        eventually(lambda: ":18080" in lab.run("ss", "-Htln").stdout, "the other program")
        said = fails(lab, "--net", "type=user,forward=18080:80", code=113)
        assert "18080 is not free" in said
        assert f"process {listener.pid}" in said
    finally:
        listener.kill()
        listener.wait()
    assert "no such interface" in fails(lab, "--net", "type=bridge,bridge=br7", code=112)
    assert "at most 15 bytes" in fails(lab, "--net", "type=bridge,bridge=a-name-too-long-for-linux", code=110)
    assert "ports below 1024 are for root" in fails(lab, "--net", "type=user,forward=80:80", code=113)
    lab.ip("link add plain type veth peer name other")
    assert "it is no bridge but veth" in fails(lab, "--net", "type=bridge,bridge=plain", code=112)
    lab.ip("link delete plain")
    lab.ip("link add used type bridge")
    lab.ip("address add 10.9.0.1/24 dev used")
    lab.ip("link set used up")
    said = fails(lab, "--net", "type=bridge,network=lab,subnet=10.9.0.0/25", code=113)
    assert "10.9.0.0/24 is reached over used already" in said
    lab.ip("link delete used")
    assert lab.traces() == before
    assert not (lab.state / "networks" / "lab" / "network.json").exists()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder for everybody; pytest closes its own to others whenever a session begins."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_without_permission(lab: Lab, open_folder: Path, monkeypatch: pytest.MonkeyPatch):
    before = lab.traces()
    monkeypatch.setenv("TINAMOU_STATE", str(open_folder / "state"))
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable]
    if lab.run(*nobody, "-c", "import tinamou", check=False).returncode:
        pytest.skip("the user nobody may not read this checkout")
    nobody += ["-m", "tinamou"]
    for wish in ("type=bridge,network=lab", "tap", "type=macvtap,interface=lo"):
        done = lab.run(*nobody, "run", "tiny", "--net", wish, "--", "true", check=False)
        assert done.returncode == 112, done.stderr
        assert "only root may make interfaces on this host" in done.stderr
        assert "use type passt" in done.stderr
    assert lab.traces() == before


def test_open_vswitch_down(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OVS_RUNDIR", str(lab.state))
    before = lab.traces()
    said = fails(lab, "--net", "type=ovs,bridge=sw0", code=112)
    assert "Open vSwitch does not answer" in said
    assert "systemctl start openvswitch-switch" in said
    assert lab.traces() == before


def test_dnsmasq_that_dies_at_once(lab: Lab, tmp_path, monkeypatch: pytest.MonkeyPatch):
    broken = tmp_path / "dnsmasq"
    broken.write_text("#!/bin/sh\necho 'failed to create listening socket' >&2\nexit 2\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    before = lab.traces()
    said = fails(lab, "--net", "type=bridge,network=lab", code=113)
    assert "dnsmasq did not start" in said
    assert "failed to create listening socket" in said
    assert lab.traces() == before
