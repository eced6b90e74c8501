"""Reading sources in tests: from text or words to the machine that comes out, and the notes about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from host_trees import make_host
from made_facts import DEBIAN, SWTPM, TCG, TINY, facts

from tinamou.blueprint import Plan
from tinamou.convert import kinds, qemu
from tinamou.convert.assemble import Converted, Seen, assemble
from tinamou.facts.host import Grouping
from tinamou.facts.net import Link, NetFacts
from tinamou.facts.pci import PciDevice, PciFacts
from tinamou.planner import plan
from tinamou.spec import load_spec
from tinamou.units import PciAddress

TOOLS = {"passt": "/usr/bin/passt", "dnsmasq": "/usr/sbin/dnsmasq", "nft": "/usr/sbin/nft", **SWTPM}


def converted(source: str | Sequence[str], seen: Mapping[str, Seen] | None = None) -> Converted:
    draft = kinds.read(source) if isinstance(source, str) else qemu.read_words(source)
    return assemble(draft, seen or {})


def line(text: str) -> Converted:
    """The machine of one command line."""
    return converted(text.split())


def planned(result: Converted) -> Plan:
    """Its plan on a host of sixteen CPUs, whatever its image is; raises where there is none."""
    spec = load_spec(result.machine)
    image = TINY if spec.image in ("tiny", "none") else dataclasses.replace(DEBIAN, disk=spec.image)
    known = facts(image, TCG)
    made = make_host(nodes=1, caches=2, cores=8, threads=1)
    has = {"devices": frozenset({"/dev/net/tun", "/dev/vhost-net"}), "tools": TOOLS}
    groups = Grouping("kernel", frozenset({"cpu", "cpuset", "io", "memory", "pids"}), "")
    host = dataclasses.replace(made, is_root=True, grouping=groups, **has)
    links = {"br0": Link("br0", "bridge"), "vmtap0": Link("vmtap0", "tun")}
    cards = PciFacts(tuple(PciDevice(PciAddress.parse(one.device), "10de", "1db4", "0302", group=1) for one in spec.pci))
    return plan(spec, dataclasses.replace(known, host=host, net=NetFacts(links=links), pci=cards))


def said(result: Converted, *words: str, rank: str = "") -> bool:
    """Whether one note holds all these words."""
    return any(all(word in str(note) for word in words) and rank in ("", note.rank) for note in result.notes)
