"""A machine's network put wrong in many ways: diagnose names the cause first, and --fix takes it away."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from labs import OUTSIDE, Lab

from tinamou.network.diagnose import Surroundings, diagnose
from tinamou.network.nics import GuestSide, HostSide, NicView

GUEST = GuestSide("eth0", "virtio_net", "52:54:00:00:00:01", 1500, True, 2, ("10.9.0.5/24",), {}, {}, 2)
HOST = HostSide("tm-1-0", True, 1500, "tm-br1", 1500)
GOOD = NicView("net0-dev", "virtio-net-pci", "52:54:00:00:00:01", "tap", "", "tm-1-0", 2, True, GUEST, HOST)
AROUND = Surroundings(passt=True, root=True, vhost=True, server=True, address="10.9.0.5", mac="52:54:00:00:00:01")


def changed(
    nic: NicView = GOOD, guest: dict[str, object] | None = None, host: dict[str, object] | None = None, **more
) -> NicView:
    from dataclasses import replace

    made = replace(nic, **more)
    made = replace(made, guest=replace(made.guest, **guest)) if guest else made
    return replace(made, host=replace(made.host, **host)) if host else made


def first(nic: NicView, around: Surroundings = AROUND) -> str:
    return diagnose([(nic, around)])[0].cause


def test_a_good_wire_has_no_finding():
    assert diagnose([(GOOD, AROUND)]) == []


@pytest.mark.parametrize(
    ("nic", "cause"),
    [
        (changed(model="e1000", backend="user"), "e1000 is emulated hardware"),
        (changed(backend="user"), "slirp"),
        (changed(vhost=False), "through QEMU, not through the kernel"),
        (changed(queues=1), "fewer queues"),
        (changed(guest={"mtu": 9000}), "large packets of the guest are lost"),
        (changed(guest={"mtu": 576}), "smaller than need be"),
        (changed(guest={"features": {"tcp-segmentation-offload": False}}), "offloads are off"),
        (changed(guest={"carrier": False}), "cable is unplugged"),
        (changed(guest={"up": False}), "guest's interface is down"),
        (changed(guest={"mac": "52:54:00:aa:bb:cc"}), "changed its MAC"),
        (changed(guest={"addresses": ("10.9.0.77/24",)}), "an address that is not its own"),
        (changed(guest={"addresses": ()}), "no IPv4 address"),
        (changed(guest={"counters": {"rx_dropped": 5000}}), "drops packets"),
        (changed(host={"up": False}), "host's interface is down"),
        (changed(host={"shaping": "qdisc tbf 8001: root rate 1Mbit"}), "queueing discipline"),
    ],
)
def test_each_cause_is_named_first(nic: NicView, cause: str):
    assert cause in first(nic)


def test_a_dead_server_a_rate_and_a_missing_driver():
    from dataclasses import replace

    assert "name server is dead" in first(GOOD, replace(AROUND, server=False))
    assert "not its own" in first(GOOD, replace(AROUND, forged=5000))
    assert "rate limit" in first(GOOD, replace(AROUND, rate_in="1Mbit"))
    assert "no driver" in first(replace(GOOD, guest=None, unseen=True))
    assert "is gone" in first(replace(GOOD, host=None))


@pytest.mark.vm
@pytest.mark.root
@pytest.mark.slow
def test_a_real_machine_put_wrong_and_right_again(lab: Lab):
    lab.outside()
    lab.start("one", "type=bridge,network=lab", "--cpus", "2")
    own = lab.address("one")
    link = json.loads(lab.tinamou("net", "ls", "--json").stdout)["interfaces"][0]["link"]
    assert _causes(lab) <= {"packets pass through QEMU, not through the kernel"}
    before = json.loads(lab.tinamou("net", "diagnose", "one", "--json", check=False).stdout)["speed"]
    assert before
    faults = {
        "the virtual cable is unplugged": lambda: lab.tinamou("net", "link", "one", "down"),
        "the guest's interface is down": lambda: lab.guest("one", "ip link set eth0 down"),
        "the host's interface is down": lambda: lab.ip(f"link set {link} down"),
        "the guest's packets are smaller than need be": lambda: lab.guest("one", "ip link set eth0 mtu 576"),
        "a queueing discipline holds packets back": lambda: lab.run(
            "tc", *f"qdisc replace dev {link} root tbf rate 1mbit burst 10k latency 50ms".split()
        ),
        "the network's DHCP and name server is dead": lambda: _kill_dnsmasq(lab),
    }
    for cause, fault in faults.items():
        fault()
        time.sleep(0.3)
        assert _first(lab) == cause
        lab.tinamou("net", "diagnose", "one", "--fix", "--no-measure", check=False)
        assert cause not in _causes(lab)
        assert lab.reaches("one", OUTSIDE), cause
    lab.guest("one", "ip addr flush dev eth0; ip addr add 10.66.0.1/24 dev eth0")
    assert _first(lab) == "the guest uses an address that is not its own"
    lab.tinamou("net", "diagnose", "one", "--fix", "--no-measure", check=False)
    assert lab.address("one") == own
    lab.guest("one", "ip link set eth0 down; ip link set eth0 address 52:54:00:aa:bb:cc; ip link set eth0 up")
    assert _first(lab) == "the guest changed its MAC address"
    lab.tinamou("net", "diagnose", "one", "--fix", "--no-measure", check=False)
    assert lab.reaches("one", OUTSIDE)
    lab.tinamou("net", "rate", "one", "--in", "1Mbit")
    assert _first(lab) == "a rate limit is set (rate_in)"
    lab.run("sh", "-c", _fix(lab))
    assert _causes(lab) <= {"packets pass through QEMU, not through the kernel"}
    lab.tinamou("net", "capture", "one", "--seconds", "1", "-o", str(lab.state / "one.pcap"))
    assert (lab.state / "one.pcap").read_bytes()[:4] in (b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4")


@pytest.mark.vm
@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "cause"),
    [
        ("type=user,model=e1000", "the guest has no driver for the card"),
        ("user", "QEMU's own TCP/IP (slirp) carries the traffic"),
        ("type=bridge,network=lab,queues=1", "fewer queues than virtual CPUs"),
    ],
)
@pytest.mark.parametrize("by_hand", [False, True])
def test_what_takes_a_new_start_is_one_command(lab: Lab, net: str, cause: str, by_hand: bool):
    lab.outside()
    lab.start("one", net, "--cpus", "2")
    lab.address("one") if "e1000" not in net else time.sleep(5)
    assert _first(lab) == cause
    if by_hand:
        lab.run("sh", "-c", _fix(lab).partition(", or ")[2] or _fix(lab))
    else:
        lab.tinamou("net", "diagnose", "one", "--fix", "--restart", check=False)
    lab.address("one")
    assert cause not in _causes(lab)
    if by_hand or "e1000" not in net:
        return
    lab.tinamou("net", "diagnose", "one", "--fix", "--restart", "--no-measure", check=False)
    assert _causes(lab) <= {"packets pass through QEMU, not through the kernel"}


def _fix(lab: Lab) -> str:
    """The first finding's fix, as a line for a shell."""
    return str(_report(lab)[0]["fix"]).replace("tinamou ", f"{sys.executable} -m tinamou ", 1)


def _report(lab: Lab) -> list[dict[str, object]]:
    done = lab.tinamou("net", "diagnose", "one", "--json", "--no-measure", check=False)
    return json.loads(done.stdout)["findings"]


def _first(lab: Lab) -> str:
    return str(_report(lab)[0]["cause"])


def _causes(lab: Lab) -> set[str]:
    return {str(finding["cause"]) for finding in _report(lab)}


def _kill_dnsmasq(lab: Lab) -> None:
    for pid in lab.run("ip", "netns", "pids", lab.name).stdout.split():
        comm = subprocess.run(["cat", f"/proc/{pid}/comm"], capture_output=True, text=True, check=False).stdout.strip()
        if comm == "dnsmasq":
            subprocess.run(["kill", "-9", pid], check=False)
