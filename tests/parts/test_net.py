"""Networks as they are planned: what is refused and why, what each backend becomes, what the filter says."""

from __future__ import annotations

import dataclasses

import pytest
from made_facts import DEBIAN, TINY, facts

from tinamou.blueprint import JoinNetwork, JoinOvs, MakeTap, OpenTap, ReservePort, SetKernelValue, SetRules
from tinamou.errors import PlanError, SpecError
from tinamou.facts import Link, NetFacts
from tinamou.launch.argv import argv
from tinamou.launch.handover import with_descriptors
from tinamou.network.nics import guest_sides, nics
from tinamou.parts.net.spec import parse_filter, parse_rate
from tinamou.planner import plan
from tinamou.spec import load_spec


def made(*nics, some=None, **more):
    return plan(load_spec({"net": list(nics), **more}), some or facts())


def steps(of, kind):
    return [step for step in of.steps if isinstance(step, kind)]


def on_host(**changes):
    known = facts()
    return dataclasses.replace(known, host=dataclasses.replace(known.host, **changes))


def refused(*nics, some=None):
    with pytest.raises(PlanError) as error:
        made(*nics, some=some)
    return " ".join(str(problem) for problem in error.value.problems)


def wrong(**nic):
    with pytest.raises(SpecError) as error:
        load_spec({"net": [nic]})
    return " ".join(str(problem) for problem in error.value.problems)


def netdevs(of):
    return [element.props for element in of.elements if element.kind == "netdev"]


def test_passt_where_it_can_be_and_a_reason_where_it_cannot():
    assert netdevs(made("auto"))[0]["type"] == "stream"
    without = made("auto", some=on_host(tools={}))
    assert netdevs(without)[0]["type"] == "user"
    assert any("passt is not installed" in note.text for note in without.notes)
    no_way_out = dataclasses.replace(facts(), net=NetFacts(default_route=False))
    assert any("no default route" in note.text for note in made("auto", some=no_way_out).notes)
    caged = dataclasses.replace(facts(), net=NetFacts(user_namespaces=False))
    assert netdevs(made("auto", some=caged))[0]["type"] == "user"
    assert any("no user namespace" in note.text for note in made("auto", some=caged).notes)
    assert "no user namespace" in refused("passt", some=caged)
    for resolver, backend in (("192.0.2.1", "stream"), ("127.0.0.53", "user"), ("", "stream")):
        asks = dataclasses.replace(facts(), net=NetFacts(resolver=resolver))
        assert netdevs(made("auto", some=asks))[0]["type"] == backend
        assert any("only name server" in note.text for note in made("passt", some=asks).notes) is (backend == "user")
    assert "passt is not installed" in refused("passt", some=on_host(tools={}))


def test_passt_has_an_identity_of_its_own():
    helper = next(step for step in made("passt").steps if type(step).__name__ == "StartHelper")
    assert helper.owner == 1_900_000_000 + 65536
    assert "--no-map-gw" in helper.argv


def test_isolated_without_a_network_is_a_stack_that_passes_nothing():
    assert netdevs(made({"isolated": True}))[0] == {"type": "user", "id": "net0", "restrict": True}


def test_only_root_makes_interfaces():
    said = refused({"type": "bridge", "network": "lab"}, some=on_host(is_root=False))
    assert "only root may make interfaces" in said
    assert "passt" in said


def test_bridges_and_interfaces_that_are_not_there():
    assert "no such interface" in refused({"type": "bridge", "bridge": "br0"})
    some = dataclasses.replace(facts(), net=NetFacts(links={"eth0": Link("eth0", ""), "br0": Link("br0", "bridge", 9000)}))
    assert "no bridge but hardware" in refused({"type": "bridge", "bridge": "eth0"}, some=some)
    assert "at most 9000 bytes" in refused({"type": "bridge", "bridge": "br0", "mtu": 9001}, some=some)
    joined = made({"type": "bridge", "bridge": "br0"}, some=some)
    assert steps(joined, MakeTap)[0].mtu == 9000
    assert next(e for e in joined.elements if e.id == "net0-dev").props["host_mtu"] == 9000
    assert "no such interface" in refused({"type": "macvtap", "interface": "eth7"})


def test_open_vswitch_that_does_not_answer():
    some = dataclasses.replace(facts(), net=NetFacts(ovs_problem="Open vSwitch does not answer: database connection failed"))
    assert "does not answer" in refused({"type": "ovs", "bridge": "sw0"}, some=some)
    assert "has no such bridge" in refused({"type": "ovs", "bridge": "sw0"})


def test_settings_a_backend_cannot_keep_are_refused():
    assert "no interface of its own" in wrong(type="passt", allow_out=["tcp:443"])
    assert "cannot forward ports" in wrong(type="macvtap", interface="eth0", forward=["8080:80"])
    assert "at most 15 bytes" in wrong(type="bridge", bridge="a-name-too-long-for-linux")
    assert "only Open vSwitch ports" in wrong(type="bridge", vlan=5)
    assert "needs it" in wrong(type="stream")
    assert "needs the socket of a program" in wrong(type="vhost-user")
    assert "and not both" in wrong(type="vhost-user", socket="/run/a", bridge="br0")
    assert "with lacp only" in wrong(type="ovs", bridge="br0", bond="up", bond_mode="balance-tcp")
    assert "not a VLAN" in wrong(type="ovs", bridge="br0", trunk=[4095])
    assert "not a rate" in wrong(type="bridge", rate_in="fast")
    assert "power of two" in wrong(queue_size=300)
    assert "not of the form" in wrong(type="bridge", allow_in=["http"])


IDLE = {
    "network": {"network": "lab"},
    "bridge": {"type": "user", "bridge": "br0"},
    "interface": {"interface": "eth0"},
    "ipv6": {"type": "tap", "ipv6": False},
    "peers": {"type": "user", "peers": False},
    "host": {"type": "tap", "host": True},
    "isolated": {"type": "bridge", "bridge": "br0", "isolated": True},
    "queues": {"queues": 4},
    "queue_size": {"model": "e1000", "queue_size": 256},
    "mtu": {"model": "e1000", "mtu": 1400},
    "packed": {"model": "rtl8139", "packed": "on"},
    "rss": {"rss": True},
    "vhost": {"type": "user", "vhost": "on"},
    "offload": {"type": "vhost-user", "socket": "/run/a", "offload": False},
    "gateway": {"gateway": "10.0.0.1"},
    "dns": {"dns": ["10.0.0.1"]},
    "trunk": {"trunk": [5]},
    "bond": {"type": "bridge", "bond": "up"},
    "bond_mode": {"type": "ovs", "bridge": "br0", "bond_mode": "balance-slb"},
    "lacp": {"type": "ovs", "bridge": "br0", "lacp": "active"},
    "socket": {"socket": "/run/a"},
    "listen": {"type": "user", "listen": True},
    "allow_in": {"allow_in": []},
    "model": {"type": "none", "model": "e1000"},
}
"""A setting, and a card on which it would do nothing."""


@pytest.mark.parametrize("field", IDLE)
def test_a_setting_that_would_do_nothing_is_refused_by_name(field):
    assert f"net[0].{field} = " in wrong(**IDLE[field])


def test_what_the_other_end_or_the_guest_cannot_do_is_refused_by_name():
    some = dataclasses.replace(facts(), net=NetFacts(links={"tap0": Link("tap0", "tun")}))
    assert "net[0].queues" in refused({"type": "tap", "interface": "tap0", "queues": 2}, some=some)
    assert "net[0].rss" in refused({"type": "tap", "rss": True}, some=some)
    assert made({"type": "tap", "rss": True, "queues": 2}, some=some)
    assert "net[0].address" in refused({"address": "fd00::2/64"})
    assert "net[0].dns" in refused({"address": "10.0.2.9/24", "dns": ["10.0.2.3", "10.0.2.4"]})
    assert made({"address": "fd00::2/64", "dns": ["fd00::3", "fd00::4"]}, some=facts(DEBIAN))


def test_what_is_so_anyway_may_be_said():
    assert made({"type": "user", "queues": 1, "vhost": "off", "offload": False, "anti_spoof": False, "host": True})


def test_notations():
    assert parse_rate("100Mbit") == 12_500_000
    assert parse_rate("8kbit") == 1000
    assert parse_rate("") == 0
    assert parse_filter("tcp:80-90@10.0.0.0/8") == ("tcp", "80-90", "10.0.0.0/8")
    assert parse_filter("any") == ("any", "", "")


def test_a_made_network_leads_ssh_to_the_guest():
    web = made({"type": "bridge", "network": "lab"}, some=facts(DEBIAN))
    join = steps(web, JoinNetwork)[0]
    assert join.forwards == (("tcp", "127.0.0.1", 2222, 22),)
    assert steps(web, ReservePort)[0].port == 2222
    assert web.ssh_port == 2222
    some = dataclasses.replace(facts(DEBIAN), net=NetFacts(links={"br0": Link("br0", "bridge")}))
    assert [one["id"] for one in netdevs(web)] == ["net0"]
    joined = made({"type": "bridge", "bridge": "br0"}, some=some)
    assert joined.ssh_port == 2222
    assert netdevs(joined)[-1] == {
        "type": "user",
        "id": "ssh",
        "net": "10.0.255.0/24",
        "restrict": True,
        "hostfwd": [{"str": "tcp:127.0.0.1:2222-:22"}],
    }
    assert [one["id"] for one in netdevs(made(some=facts(DEBIAN)))] == ["ssh"]
    assert netdevs(made()) == []


def test_vhost_user_needs_a_switch_that_reads_memory():
    port = {"type": "vhost-user", "bridge": "sw0", "vlan": 5}
    plain = dataclasses.replace(facts(), net=NetFacts(ovs={"sw0": "netdev"}))
    assert "runs without DPDK" in refused(port, some=plain)
    kernel = dataclasses.replace(facts(), net=NetFacts(ovs={"sw0": "system"}, ovs_dpdk=True))
    assert "the kernel switches it" in refused(port, some=kernel)
    assert "does not answer" in refused(port, some=dataclasses.replace(facts(), net=NetFacts(ovs_problem="does not answer")))
    able = made(port, some=dataclasses.replace(facts(), net=NetFacts(ovs={"sw0": "netdev"}, ovs_dpdk=True)))
    [join] = steps(able, JoinOvs)
    assert (join.vlan, join.socket.rpartition("/")[2]) == (5, "net0.sock")
    memory = next(one.props for one in able.elements if one.id == "ram0")
    assert memory["share"] is True


def test_a_card_that_was_taken_away_leaves_its_number():
    some = made({"type": "none"}, "user", {"type": "user", "port": 2}, "none")
    assert [one["id"] for one in netdevs(some)] == ["net1", "net2"]
    cards = {one.id: one.props for one in some.elements if one.kind == "device" and one.id.startswith("net")}
    assert cards["net2-dev"]["bus"] == "plug2"
    assert "bus" not in cards["net1-dev"]


def test_members_of_a_bond_are_one_port():
    there = dataclasses.replace(facts(), net=NetFacts(ovs={"sw0": "netdev"}))
    bonded = {"type": "ovs", "bridge": "sw0", "bond": "up", "lacp": "active"}
    joins = steps(made(bonded, bonded, some=there), JoinOvs)
    assert len({join.name for join in joins}) == 2
    assert {join.bond for join in joins} == {joins[0].name.rpartition("-")[0] + "-up"}


def test_the_filter_names_only_this_machine():
    rules = steps(made({"type": "bridge", "network": "lab"}), SetRules)[0].rules
    tap = steps(made({"type": "bridge", "network": "lab"}), MakeTap)[0].name
    assert len(tap) <= 15
    assert all(tap in line and "netdev tinamou" in line for line in rules.splitlines())
    assert "ether saddr !=" in rules
    assert "arp saddr ip !=" in rules
    assert not steps(made({"type": "bridge", "network": "lab", "anti_spoof": False}), SetRules)
    nothing = steps(made({"type": "bridge", "network": "lab", "allow_out": []}), SetRules)[0].rules
    assert nothing.splitlines()[-1].endswith('counter drop comment "refused"')


def test_queues_follow_the_virtual_cpus_where_the_backend_can():
    tap = made({"type": "tap"}, cpus=4)
    assert steps(tap, OpenTap)[0].queues == 4
    card = next(e for e in tap.elements if e.id == "net0-dev").props
    assert card["mq"] is True
    assert card["vectors"] == 10
    assert "mq" not in next(e for e in made("passt", cpus=4).elements if e.id == "net0-dev").props


def test_vhost_where_the_host_has_it_and_the_reason_where_not():
    known = facts()
    with_vhost = on_host(devices=frozenset({"/dev/net/tun", "/dev/vhost-net"}))
    assert netdevs(made("tap", some=with_vhost))[0]["vhost"] is True
    assert "no /dev/vhost-net" in refused({"type": "tap", "vhost": "on"}, some=known)
    assert any("/dev/vhost-net" in note.text for note in made("tap", some=known).notes)


def test_taps_and_sockets_are_handed_over():
    planned = made({"type": "tap"}, "passt", cpus=2)
    tap = steps(planned, MakeTap)[0].name
    socket = netdevs(planned)[1]["addr"]["path"]
    line = argv(with_descriptors(planned, {f"tap:{tap}#0": 31, f"tap:{tap}#1": 32, socket: 33}))
    assert '{"type":"tap","id":"net0","fds":"31:32"}' in line
    assert '{"type":"stream","id":"net1","server":false,"addr":{"type":"fd","str":"33"}}' in line
    assert not any("add-fd" in word for word in line)


def test_every_interface_has_an_address_of_its_own_that_stays():
    cards = [e.props["mac"] for e in made("user", "user", "user").elements if e.id.endswith("-dev") and "mac" in e.props]
    assert len(set(cards)) == 3
    assert cards == [
        e.props["mac"] for e in made("user", "user", "user").elements if e.id.endswith("-dev") and "mac" in e.props
    ]
    assert TINY.name == "tiny"


def test_reading_info_network():
    text = (
        "net0-dev: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:00:00:01\n"
        " \\ net0: index=0,type=tap,fd=31\n"
        "net0-dev: index=1,type=nic,model=virtio-net-pci,macaddr=52:54:00:00:00:01\n"
        " \\ net0: index=1,type=tap,fd=32\n"
        "e1000.0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\n"
        " \\ #net071: index=0,type=user,net=10.0.2.0,restrict=off\n"
    )
    one, two = nics(text)
    assert (one.id, one.backend, one.queues) == ("net0-dev", "tap", 2)
    assert (two.model, two.backend) == ("e1000", "user")


def test_reading_the_guests_side():
    lines = ["= eth0 virtio_net 52:54:00:00:00:01 1500 0x1003 2 1 0", "a 10.0.2.15/24", "c rx_dropped 3"]
    text = "\n".join([*lines, "f tcp-segmentation-offload off"])
    (side,) = guest_sides(text)
    assert side.driver == "virtio_net"
    assert (side.cpus, side.queues, side.up, side.carrier) == (2, 1, True, False)
    assert side.counters == {"rx_dropped": 3}
    assert side.features == {"tcp-segmentation-offload": False}


def test_ports_that_lead_in_go_through_qemu_itself():
    assert netdevs(made({"type": "auto", "forward": ["8080:80"]}))[0]["type"] == "user"
    assert netdevs(made({"type": "passt", "forward": ["8080:80"]}))[0]["type"] == "stream"


def test_ipv6_leads_beyond_the_host_unless_that_costs_the_host_its_own():
    led = made({"type": "bridge", "network": "lab"})
    assert steps(led, JoinNetwork)[0].onward6
    assert "/proc/sys/net/ipv6/conf/all/forwarding" in [one.path for one in steps(led, SetKernelValue)]
    hearing = dataclasses.replace(facts(), net=NetFacts(hears_routers=("eth0",)))
    ends = made({"type": "bridge", "network": "lab"}, some=hearing)
    assert not steps(ends, JoinNetwork)[0].onward6
    assert [one.path for one in steps(ends, SetKernelValue)] == ["/proc/sys/net/ipv4/ip_forward"]
    assert any("ends at this host: eth0" in note.text and "accept_ra=2" in note.text for note in ends.notes)
    for asked in ({"isolated": True}, {"ipv6": False}):
        kept = made({"type": "bridge", "network": "lab", **asked}, some=hearing)
        assert not steps(kept, JoinNetwork)[0].onward6
        assert not any("IPv6" in note.text for note in kept.notes)
