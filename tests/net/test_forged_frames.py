"""Raw frames a guest forges: MAC, IPv4, ARP, IPv6, neighbour advertisements, DHCP answers; with the filter and without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from forging import advertisement, arp, carry_python, ethernet, heard, ipv4, ipv6, listen, marked, send, udp
from labs import Lab

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

SECONDS = 45.0


@pytest.mark.parametrize("held", [True, False])
def test_only_the_machines_own_frames_pass(lab: Lab, tmp_path: Path, held: bool):
    if os.uname().machine != "x86_64" or not Path("/usr/bin/python3").exists():
        pytest.skip("the forging guest runs this host's own Python")
    net = f"type=bridge,network=lab,subnet=10.9.0.0/24,anti_spoof={str(held).lower()}"
    for name in ("one", "two"):
        lab.start(name, net)
        carry_python(lab, name, tmp_path)
    one, two = lab.address("one"), lab.address("two")
    own6, peer6 = lab.address6("one", "fd"), lab.address6("two", "fd")
    assert lab.reaches("one", two)
    macs = {name: lab.guest(name, "cat /sys/class/net/eth0/address").strip() for name in ("one", "two")}
    me, peer, other = macs["one"], macs["two"], "52:54:00:aa:bb:cc"

    def packet(name: str, source: str = one, hardware: str = me, ports: tuple[int, int] = (4000, 4000)) -> bytes:
        return ethernet(peer, hardware, 0x0800, ipv4(source, two, udp(*ports, marked(name))))

    def packet6(name: str, source: str = own6) -> bytes:
        return ethernet(peer, me, 0x86DD, ipv6(source, peer6, udp(4000, 4000, marked(name))))

    forged = {
        "mac": packet("mac", hardware=other),
        "ip": packet("ip", source="10.9.0.77"),
        "gateway": packet("gateway", source="10.9.0.1"),
        "outside": packet("outside", source="198.51.100.9"),
        "dhcp": packet("dhcp", ports=(67, 68)),
        "ip6": packet6("ip6", source="fd00::77"),
        "arp": ethernet(peer, me, 0x0806, arp(me, "10.9.0.1", peer, two) + marked("arp")),
        "arpmac": ethernet(peer, me, 0x0806, arp(other, one, peer, two) + marked("arpmac")),
        "vlan": ethernet(peer, me, 0x8100, b"\x00\x05\x08\x00" + ipv4(one, two, udp(4000, 4000, marked("vlan")))),
    }
    honest = {
        "own": packet("own"),
        "own6": packet6("own6"),
        "ownarp": ethernet(peer, me, 0x0806, arp(me, one, peer, two) + marked("ownarp")),
    }
    gateway6 = own6.rpartition(":1:")[0] + ":1::1"
    claims = advertisement(own6, peer6, gateway6, me)
    listen(lab, "two", SECONDS)
    send(lab, "one", [*forged.values(), *honest.values(), ethernet(peer, me, 0x86DD, claims)])
    seen = heard(lab, "two")
    passed = {name.strip() for name in seen}
    assert set(honest) <= passed
    assert passed & set(forged) == (set() if held else set(forged))
    dropped = lab.run("nft", "list", "ruleset").stdout
    advertised = [line for line in dropped.splitlines() if "nd-neighbor-advert" in line and "counter" in line]
    assert bool(advertised) is held
    assert any("packets 0 " not in line for line in advertised) is held
