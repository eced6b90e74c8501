"""Machines on Open vSwitch: VLANs that separate and join, trunks, rates, bonds; and ports that read guests' memory."""

from __future__ import annotations

import re

import pytest
from labs import Lab, sends, speak6
from switches import Switch, load_module

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]


def test_vlans_separate_join_and_are_carried_in_a_trunk(lab: Lab, switch: Switch):
    lab.start("one", "type=ovs,bridge=sw0,vlan=5,address=10.9.0.1/24")
    lab.start("two", "type=ovs,bridge=sw0,vlan=5,address=10.9.0.2/24")
    lab.start("three", "type=ovs,bridge=sw0,vlan=6,address=10.9.0.3/24")
    lab.start("router", "type=ovs,bridge=sw0,trunk=5,trunk=6,address=10.9.7.4/24")
    assert lab.reaches("one", "10.9.0.2")
    assert lab.reaches("two", "10.9.0.1")
    assert not lab.pings("one", "10.9.0.3")
    assert not lab.pings("three", "10.9.0.1")
    sends(lab, "one", "two", "10.9.0.2", kib=512)
    sends(lab, "two", "one", "10.9.0.1", kib=512)
    speak6(lab, "one", "two")
    load_module(lab, "router", "8021q")
    for vlan, address in ((5, "10.9.0.4"), (6, "10.9.0.5"), (7, "10.9.0.6")):
        lab.guest("router", f"vconfig add eth0 {vlan}; ip link set eth0.{vlan} up; ip addr add {address}/32 dev eth0.{vlan}")
    lab.guest("router", "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore")  # each address on its own VLAN alone
    lab.guest("router", "ip route add 10.9.0.1 dev eth0.5; ip route add 10.9.0.3 dev eth0.6")
    assert lab.reaches("one", "10.9.0.4")
    assert lab.reaches("router", "10.9.0.1")
    assert lab.reaches("three", "10.9.0.5")
    assert not lab.pings("one", "10.9.0.5")
    lab.guest("router", "ip route replace 10.9.0.1 dev eth0.7")
    assert not lab.pings("router", "10.9.0.1")
    lab.tinamou("rm", "-f", "one", "two", "three", "router")
    assert switch.ports() == []


def test_rates_hold_and_change_while_packets_flow(lab: Lab, switch: Switch):
    switch.ctl("--id=@q", "create", "qos", "type=linux-htb", "external_ids:mine=yes")
    lab.start("one", "type=ovs,bridge=sw0,address=10.9.0.1/24,rate_in=8Mbit,rate_out=4Mbit")
    lab.start("two", "type=ovs,bridge=sw0,address=10.9.0.2/24")
    [port] = [name for name in switch.ports() if switch.ctl("get", "port", name, "qos") != "[]"]
    assert switch.ctl("get", "interface", port, "ingress_policing_rate") == "4000"
    assert lab.reaches("one", "10.9.0.2")
    sends(lab, "two", "one", "10.9.0.1", kib=2048)
    shaped = lab.run("tc", "-s", "class", "show", "dev", port).stdout
    assert "rate 8Mbit" in shaped
    held_back = re.findall(r"overlimits (\d+)", shaped)
    assert any(int(count) for count in held_back)
    lab.tinamou("net", "rate", "one", "--in", "80Mbit", "--out", "off")
    assert switch.ctl("get", "interface", port, "ingress_policing_rate") == "0"
    assert "rate 80Mbit" in lab.run("tc", "class", "show", "dev", port).stdout
    lab.tinamou("net", "rate", "one", "--in", "off")
    assert switch.ctl("get", "port", port, "qos") == "[]"
    lab.tinamou("rm", "-f", "one", "two")
    assert switch.ctl("--columns=external_ids", "--bare", "list", "qos") == "mine=yes"


def test_a_bond_outlives_each_of_its_members(lab: Lab, switch: Switch):
    bonded = "type=ovs,bridge=sw0,bond=up,bond_mode=balance-slb,lacp=active"
    lab.start("one", f"{bonded},address=10.9.7.1/24", "--net", bonded)
    lab.start("two", "type=ovs,bridge=sw0,address=10.9.0.2/24")
    [bond] = [name for name in switch.ports() if name.endswith("-up")]
    load_module(lab, "one", "bonding")
    lab.guest(
        "one",
        "pkill udhcpc; ip addr flush dev eth0; ip link set eth0 down; ip link set eth1 down; cd /sys/class/net;"
        " echo +bond0 >bonding_masters; cd bond0/bonding; echo 802.3ad >mode; echo 100 >miimon; echo fast >lacp_rate;"
        " echo +eth0 >slaves; echo +eth1 >slaves; ip link set bond0 up; ip addr add 10.9.0.1/24 dev bond0",
    )
    assert lab.reaches("two", "10.9.0.1", seconds=60)
    assert "status: active negotiated" in switch.app("lacp/show", bond)
    for card in ("net0", "net1"):
        lab.tinamou("net", "link", "one", "down", "--nic", card)
        assert lab.reaches("two", "10.9.0.1", seconds=60)
        lab.tinamou("net", "link", "one", "up", "--nic", card)
        lab.wait("one", "! grep -q 'MII Status: down' /proc/net/bonding/bond0")
    members = [
        line.split()[1].rstrip(":") for line in switch.app("bond/show", bond).splitlines() if line.startswith("member")
    ]
    for member in members:
        lab.ip(f"link set {member} down")
        assert lab.reaches("two", "10.9.0.1", seconds=60)
        lab.ip(f"link set {member} up")
        lab.reaches("two", "10.9.0.1", seconds=30)
    assert len(members) == 2
    lab.tinamou("rm", "-f", "one", "two")
    assert switch.ports() == []
    assert switch.ctl("--columns=name", "--bare", "list", "interface").split() == ["sw0"]


def test_a_switch_that_reads_the_guests_memory(lab: Lab, dpdk_switch: Switch):
    for number, name in enumerate(("one", "two"), 1):
        lab.start(name, f"type=vhost-user,bridge=sw0,address=10.9.0.{number}/24,vlan=5", "--cpus", "2")
    lab.start("three", "type=vhost-user,bridge=sw0,address=10.9.0.3/24,vlan=6")
    assert lab.reaches("one", "10.9.0.2")
    assert lab.reaches("two", "10.9.0.1")
    assert not lab.pings("one", "10.9.0.3")
    sends(lab, "one", "two", "10.9.0.2", kib=512)
    sends(lab, "two", "one", "10.9.0.1", kib=512)
    speak6(lab, "one", "two")
    for number, name in enumerate(("one", "three"), 1):
        lab.tinamou("net", "add", name, f"type=vhost-user,bridge=sw0,address=10.9.1.{number}/24,vlan=7")
    assert lab.reaches("one", "10.9.1.2")
    lab.tinamou("net", "rm", "one", "net1")
    assert len(dpdk_switch.ports()) == 4
    lab.start("plain", "user")
    refused = lab.tinamou("net", "add", "plain", "type=vhost-user,bridge=sw0", check=False)
    assert refused.returncode == 115
    assert "private to its QEMU" in refused.stderr
    assert len(dpdk_switch.ports()) == 4
    lab.tinamou("rm", "-f", "one", "two", "three", "plain")
    assert dpdk_switch.ports() == []


def test_a_switch_without_dpdk_reads_no_memory(lab: Lab, switch: Switch):
    refused = lab.tinamou("run", "tiny", "--net", "type=vhost-user,bridge=sw0", "--", "true", check=False)
    assert refused.returncode == 112
    assert "runs without DPDK" in refused.stderr
    switch.stop()
    refused = lab.tinamou("run", "tiny", "--net", "type=ovs,bridge=sw0", "--", "true", check=False)
    assert refused.returncode == 112
    assert "does not answer" in refused.stderr
