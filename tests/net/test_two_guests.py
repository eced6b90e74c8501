"""Two real guests on every backend: they reach each other by address and by name, over IPv4 and IPv6, in both directions."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from labs import OUTSIDE, OUTSIDE6, Lab, sends, speak6

pytestmark = [pytest.mark.vm, pytest.mark.root]


@pytest.mark.slow
def test_a_network_made_for_the_machines(lab: Lab):
    lab.outside()
    lab.start("one", "type=bridge,network=lab", "--cpus", "2")
    lab.start("two", "type=bridge,network=lab")
    assert lab.address("one") != lab.address("two")
    assert lab.reaches("one", "two")
    assert lab.reaches("two", lab.address6("one", "fd"))
    assert lab.address("two") in lab.guest("one", "nslookup two")
    assert lab.reaches("one", OUTSIDE)
    assert lab.reaches("one", OUTSIDE6)
    lab.far("ip", "route", "add", lab.address6("one", "fd"), "via", "2001:db8:1::2")
    assert lab.far("ping", "-c", "1", "-W", "2", lab.address6("one", "fd"), check=False).count(" 0 received")
    assert lab.guest("one", "ls -d /sys/class/net/eth0/queues/rx-* | wc -l").strip() == "2"
    sends(lab, "one", "two", "two")
    sends(lab, "two", "one", "one")
    sends(lab, "one", "two", lab.address6("two", "fd"), kib=256)
    sends(lab, "two", "one", lab.address6("one", "fd"), kib=256)
    lab.tinamou("rm", "-f", "one")
    assert "tm-br" in lab.traces()["links"]
    lab.tinamou("rm", "-f", "two")
    assert lab.traces() == {"links": "lo out0@if2", "nft": ""}


@pytest.mark.slow
def test_a_suspended_machine_leaves_its_network_and_comes_back_as_who_it_was(lab: Lab):
    lab.start("one", "type=bridge,network=lab")
    lab.start("two", "type=bridge,network=lab")
    address, links = lab.address("one"), lab.traces()["links"]
    lab.tinamou("suspend", "one")
    assert lab.traces()["links"] != links
    lab.tinamou("suspend", "two")
    assert "tm-br" not in lab.traces()["links"]
    lab.tinamou("resume", "two")
    lab.tinamou("resume", "one")
    assert lab.address("one") == address
    assert lab.reaches("one", "two")
    sends(lab, "two", "one", "one")
    lab.tinamou("rm", "-f", "one", "two")


@pytest.mark.slow
def test_a_bridge_of_the_host(lab: Lab):
    lab.ip("link add br0 type bridge")
    lab.ip("link add host type veth peer name port")
    for line in ("set port master br0", "set port up", "set host up", "set br0 up"):
        lab.ip(f"link {line}")
    lab.run("nft", "-f", "-", input="table ip mine {\nchain c {\ntype filter hook forward priority 0;\n}\n}\n")
    lab.run("nft", "-f", "-", input="table netdev tinamou_of_others {\nchain c {\n}\n}\n")
    before = lab.traces(), lab.ip("-details link show br0"), lab.run("bridge", "fdb", "show", "br", "br0").stdout
    lab.start("one", "type=bridge,bridge=br0,address=10.9.0.1/24")
    lab.start("two", "type=bridge,bridge=br0,address=10.9.0.2/24")
    assert lab.address("one") == "10.9.0.1"
    assert lab.reaches("one", "10.9.0.2")
    sends(lab, "one", "two", "10.9.0.2")
    sends(lab, "two", "one", "10.9.0.1")
    speak6(lab, "one", "two")
    lab.tinamou("rm", "-f", "one", "two")
    after = lab.traces(), lab.ip("-details link show br0"), lab.run("bridge", "fdb", "show", "br", "br0").stdout
    assert _steady(after) == _steady(before)


def _steady(seen: tuple[dict[str, str], str, str]) -> tuple[dict[str, str], str, list[str]]:
    """Without the bridge's running timers, and without the addresses it learned from its own port meanwhile."""
    lines = [" ".join(word for word in line.split() if not word.replace(".", "").isdigit()) for line in seen[1].splitlines()]
    kept = sorted(line for line in seen[2].splitlines() if "permanent" in line or "static" in line)
    return seen[0], "\n".join(lines), kept


@pytest.mark.slow
def test_macvtap(lab: Lab):
    lab.ip("link add base type veth peer name far0")
    lab.ip("link set base up")
    lab.ip("link set far0 up")
    lab.start("one", "type=macvtap,interface=base,address=10.9.0.1/24")
    lab.start("two", "type=macvtap,interface=base,address=10.9.0.2/24", "--cpus", "2")
    assert lab.reaches("one", "10.9.0.2")
    sends(lab, "one", "two", "10.9.0.2")
    sends(lab, "two", "one", "10.9.0.1")
    speak6(lab, "one", "two")
    lab.tinamou("rm", "-f", "one", "two")
    assert lab.traces() == {"links": "base@far0 far0@base lo", "nft": ""}


@pytest.mark.slow
def test_a_cable_between_two_machines(lab: Lab):
    cable = lab.state / "cable"
    lab.start("one", f"type=stream,socket={cable},listen=true,address=10.9.0.1/24")
    lab.start("two", f"type=stream,socket={cable},address=10.9.0.2/24")
    assert lab.reaches("one", "10.9.0.2")
    sends(lab, "one", "two", "10.9.0.2", kib=512)
    sends(lab, "two", "one", "10.9.0.1", kib=512)
    speak6(lab, "one", "two")
    said = lab.tinamou("run", "tiny", "--net", f"type=stream,socket={cable},listen=true", "--", "true", check=False)
    assert said.returncode == 113
    assert "another program listens on it" in said.stderr
    lab.tinamou("rm", "-f", "one", "two")
    assert not cable.is_symlink()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["passt", "user"])
def test_without_rights(lab: Lab, backend: str):
    if backend == "passt" and not shutil.which("passt"):
        pytest.skip("passt is not installed (script/setup installs it)")
    lab.outside()
    lab.resolver("web.test", "192.0.2.7")
    lab.run("sh", "-c", "echo 0 4294967294 >/proc/sys/net/ipv4/ping_group_range")
    lab.start("one", f"type={backend},forward=tcp:192.0.2.2:7001:5001")
    lab.start("two", f"type={backend},forward=tcp:192.0.2.2:7002:5001")
    assert lab.address("one") == lab.address("two") == "10.0.2.15"
    _sends_over(lab, "one", "two", 7002)
    _sends_over(lab, "two", "one", 7001)
    assert lab.reaches("one", OUTSIDE)
    assert "192.0.2.7" in lab.guest("one", "ping -c 1 -W 1 web.test", check=False)
    _speaks_outside6(lab, "one")
    lab.tinamou("rm", "-f", "one", "two")
    assert lab.traces() == {"links": "lo out0@if2", "nft": ""}


def _speaks_outside6(lab: Lab, name: str) -> None:
    words = ["ip", "netns", "exec", f"{lab.name}-far", "nc", "-l", "-N", OUTSIDE6, "7003"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as far:
        line = f"(echo from-the-guest; sleep 1) | nc -w 10 {OUTSIDE6} 7003"
        far.stdin.write("from-outside\n")
        far.stdin.close()
        assert lab.wait(name, line) == "from-outside\n"
        assert far.stdout.read() == "from-the-guest\n"


def _sends_over(lab: Lab, sender: str, receiver: str, port: int) -> None:
    lab.guest(
        receiver,
        '(setsid nc -l -p 5001 -e sh -c "cat >/tmp/got.part; mv /tmp/got.part /tmp/got") >/dev/null 2>&1 </dev/null &',
    )
    lab.guest(sender, "dd if=/dev/urandom of=/tmp/data bs=1k count=512 2>/dev/null")
    lab.guest(sender, f"nc -w 30 192.0.2.2 {port} -e cat /tmp/data </dev/null")
    assert lab.wait(receiver, "test -e /tmp/got && md5sum </tmp/got") == lab.guest(sender, "md5sum </tmp/data")


@pytest.mark.slow
def test_a_tap_handed_in(lab: Lab):
    lab.ip("tuntap add mine mode tap")
    lab.ip("address add 10.9.0.254/24 dev mine")
    lab.ip("link set mine up")
    lab.start("one", "type=tap,interface=mine,address=10.9.0.1/24")
    lab.address("one")
    assert lab.run("ping", "-c", "2", "-W", "3", "10.9.0.1", check=False).returncode == 0
    lab.tinamou("rm", "-f", "one")
    assert "mine" in lab.traces()["links"]
    assert "10.9.0.254/24" in lab.ip("-br address")


@pytest.mark.slow
def test_ports_of_the_host_lead_into_a_made_network(lab: Lab):
    lab.outside()
    lab.start("one", "type=bridge,network=lab,forward=tcp:127.0.0.1:7001:5001,forward=tcp:192.0.2.2:7002:5002")
    lab.address("one")
    for port in (5001, 5002):
        lab.guest("one", f"(setsid nc -l -p {port} -e echo from-the-guest) >/dev/null 2>&1 </dev/null &")
        lab.wait("one", f"netstat -tln | grep -q :{port}")
    assert "from-the-guest" in lab.run("nc", "-w", "5", "127.0.0.1", "7001", input="", check=False).stdout
    assert "from-the-guest" in lab.far("nc", "-w", "5", "192.0.2.2", "7002", check=False)
    lab.tinamou("rm", "-f", "one")
    assert lab.traces() == {"links": "lo out0@if2", "nft": ""}
