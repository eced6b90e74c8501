"""Hosts with networks, mounts, processes and ssh of their own: a machine goes from one to another, and the line is cut."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from made_of_hosts import ROOT, Hosts, up
from typed import eventually

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("sshd", path="/usr/sbin"), reason="no sshd (openssh-server)"),
]


@pytest.fixture
def two() -> Iterator[Hosts]:
    yield from up(2)


@pytest.fixture
def three() -> Iterator[Hosts]:
    yield from up(3)


def test_hosts_reach_each_other_unless_the_wire_is_cut(two: Hosts) -> None:
    def reached() -> bool:
        return two.script("run", "1", "ssh", "-o", "ConnectTimeout=2", "h2", "hostname", check=False).stdout == "h2\n"

    eventually(reached, "ssh")
    two.script("cut", "2")
    assert not reached()
    two.script("mend", "2")
    eventually(reached, "ssh again")
    two.script("wire", "2", "20", "1")
    eventually(reached, "ssh over a slow wire")
    two.script("run", "2", "touch", "/root/kept", "/run/lost")
    two.script("kill", "2")
    two.script("boot", "2")
    found = two.script("run", "2", "ls", "/root/kept", "/run/lost", check=False).stdout.split()
    assert found == ["/root/kept"]


@pytest.mark.vm
def test_a_machine_stays_where_it_is_when_the_line_is_cut_and_goes_over_a_slow_one(two: Hosts) -> None:
    two.know(1, 2)
    disk = 'disk=[{size="16M"}]'
    two.tinamou(1, "run", "-d", "--name", "web", "--memory", "192M", "--net", "none", "--set", disk)
    words = [str(ROOT / "script/hosts"), "run", "1", *two.words, "move", "web", "h2", "--limit", "2M"]
    with subprocess.Popen(words, env=two.environment, stderr=subprocess.PIPE, text=True) as moving:
        assert moving.stderr is not None
        said = ""
        while "sending memory" not in said:
            line = moving.stderr.readline()
            assert line, said
            said += line
        two.script("cut", "2")
        said = moving.stderr.read()
    assert moving.returncode != 0
    assert "the line to the other host has ended" in said
    assert two.states(1) == ["running"]
    assert two.tinamou(1, "exec", "web", "--", "echo", "on") == "on\n"
    two.script("wire", "2", "20", "1")
    eventually(lambda: two.states(2) == [], "nothing is left there", 120)
    two.tinamou(1, "move", "web", "h2")
    assert (two.states(1), two.states(2)) == (["moved"], ["running"])
    assert two.tinamou(2, "exec", "web", "--", "echo", "on") == "on\n"


BRIDGED = """
ip link add br0 address 02:00:00:00:77:0$1 type bridge && ip link set br0 up
ip link set eth0 master br0 && ip addr flush dev eth0 && ip addr add 10.77.0.$1/24 dev br0
"""
SERVES = "ip addr add 10.77.0.50/24 dev eth0 2>/dev/null; ip link set eth0 up; (nc -l -p 7000 -e cat) >/dev/null 2>&1 &"
CLIENT = """
import socket, sys, time
for _ in range(300):
    try:
        line = socket.create_connection(("10.77.0.50", 7000), timeout=120)
        break
    except OSError as error:
        print(error, file=sys.stderr)
        time.sleep(0.2)
for number in range(1 << 30):
    line.sendall(b"%9d\\n" % number)
    told = b""
    while len(told) < 10:
        told += line.recv(10 - len(told)) or sys.exit("the connection ended")
    assert int(told) == number
    if number % 100 == 0:
        print(number, flush=True)
"""


@pytest.mark.vm
def test_a_connection_from_a_third_host_outlives_the_move(three: Hosts) -> None:
    for host in ("1", "2"):
        three.script("run", host, "sh", "-ec", BRIDGED, "sh", host)
    three.know(1, 2)
    net = 'net=[{type="bridge",bridge="br0",address="10.77.0.50/24"}]'
    three.tinamou(1, "run", "-d", "--name", "web", "--memory", "192M", "--set", net)
    three.tinamou(1, "exec", "web", "--", "sh", "-c", SERVES)
    words = [str(ROOT / "script/hosts"), "run", "3", sys.executable, "-c", CLIENT]
    with subprocess.Popen(words, env=three.environment, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "0\n"
        three.tinamou(1, "move", "web", "h2")
        assert (three.states(1), three.states(2)) == (["moved"], ["running"])
        seen = three.script("run", "3", "ip", "neigh").stdout
        before = int(client.stdout.readline())
        later = [int(client.stdout.readline()) for _ in range(3)]
        client.kill()
    assert "10.77.0.50" in seen
    assert later[-1] > before
