"""libvirt's own test domains, converted and planned: QEMU's arguments are those libvirt writes, or a rule says why not."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections import Counter
from pathlib import Path

import made_facts
import pytest
from arguments_explained import unexplained
from facts_of_arguments import facts
from host_trees import make_host
from reading import TOOLS, converted

from tinamou.blueprint import Plan
from tinamou.errors import PlanError, SpecError
from tinamou.facts.host import Grouping
from tinamou.facts.image import ImageFacts
from tinamou.facts.net import Link, NetFacts
from tinamou.facts.pci import PciDevice, PciFacts
from tinamou.launch.argv import argv
from tinamou.planner import plan
from tinamou.spec import load_spec
from tinamou.units import PciAddress, Size

DATA = Path(os.environ.get("TINAMOU_LIBVIRT_SOURCE", "/nonexistent")) / "tests" / "qemuxml2argvdata"
DEVICES = frozenset({"/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/kvm"})
REFUSED = (
    "tinamou has no machines of",
    "devices do not fit on the PCI bus",
    "the controller has 15 ports",
    "enlightenments are KVM's",
    "does not show sev",
    "not on this host: 2048",
    "no installed firmware serves",
)
"""What a machine may be refused for."""


def planned(result) -> Plan:
    """A plan on a host that has all there is, of a machine whose image starts by BIOS and UEFI."""
    spec = load_spec(result.machine)
    disk = "" if spec.boot.kernel else "/tiny.qcow2" if spec.image == "tiny" else spec.image
    boots = ("direct",) if spec.boot.kernel else ("bios", "uefi")
    image = ImageFacts("i", spec.arch or "x86_64", disk=disk, format="qcow2", size=Size.parse("8G"), boots=boots)
    kvm = any(note.where == "domain" and "kvm" in note.value for note in result.notes)
    known = made_facts.facts(image, made_facts.KVM_WORKS if kvm else made_facts.TCG)
    made = make_host(nodes=1, caches=2, cores=300, threads=1, memory="512G")
    groups = Grouping("kernel", frozenset({"cpu", "cpuset", "io", "memory", "pids"}), "")
    host = dataclasses.replace(made, is_root=True, grouping=groups, devices=DEVICES, tools=TOOLS)
    cards = PciFacts(tuple(PciDevice(PciAddress.parse(one.device), "10de", "1db4", "0302", group=1) for one in spec.pci))
    links = {one.bridge: Link(one.bridge, "bridge") for one in spec.net if one.bridge}
    links |= {one.interface: Link(one.interface, "tun") for one in spec.net if one.interface}
    return plan(spec, dataclasses.replace(known, host=host, net=NetFacts(links=links), pci=cards))


def test_a_difference_without_a_rule_is_seen():
    words = shlex.split('-machine pc-q35-7.2 -smp 2 -m 1024 -device \'{"driver":"nosuch"}\' -device i6300esb')
    other = facts(shlex.split("-machine q35 -smp 2 -m 1G"))
    theirs = sorted((facts(words) - other).elements())
    assert theirs == ["device i6300esb", "device nosuch"]
    assert unexplained(theirs, [], []) == ["+device i6300esb", "+device nosuch"]
    assert unexplained(theirs, [], ["lost    watchdog i6300esb"]) == ["+device nosuch"]
    assert unexplained([], ["memory 512 MiB", "disk /x virtio"], []) == ["-memory 512 MiB", "-disk /x virtio"]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="TINAMOU_LIBVIRT_SOURCE names no unpacked source package of libvirt")
def test_every_argument_is_libvirts_or_explained() -> None:
    wrong: dict[str, list[str]] = {}
    count: Counter[str] = Counter()
    for path in sorted(DATA.glob("*.xml")):
        written = next((one for end in (".x86_64-latest.args", ".args") if (one := path.with_suffix(end)).exists()), None)
        if written is None:
            continue
        try:
            result = converted(path.read_text())
            ours = facts(argv(planned(result))[1:])
        except (SpecError, PlanError) as error:
            assert any(one in str(error) for one in REFUSED), f"{path.name}: {error}"
            count["refused"] += 1
            continue
        words = shlex.split(written.read_text().replace("\\\n", " "))
        binary = next(at for at, word in enumerate(words) if word.startswith("/") and "qemu" in word)
        theirs = facts(words[binary + 1 :])
        left = [sorted((one - other).elements()) for one, other in ((theirs, ours), (ours, theirs))]
        count.update({"compared": 1, "same": sum((theirs & ours).values()), "explained": len(left[0]) + len(left[1])})
        if found := unexplained(*left, [str(note) for note in result.notes]):
            wrong[path.name] = found
    print(dict(count))
    assert wrong == {} and count["compared"] > 500
