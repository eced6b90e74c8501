"""The golden specs as domains that a libvirtd of this host can start: with tiny's kernel, and what is not here taken out."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

from tinamou.convert.out import formats
from tinamou.convert.out.asked import Place
from tinamou.facts.image import ImageFacts
from tinamou.spec import load_spec
from tinamou.system.qcow2 import write_overlay

SPECS = sorted((Path(__file__).parent.parent / "golden" / "specs").glob("*.toml"))
NOT_STARTED = {
    "passthrough": "a card of the host's own, which this one has not",
}
"""Golden spec → why it cannot start here."""
TAKEN_OUT = (
    ("interface[@type='vhostuser']", "a switch that speaks vhost-user"),
    ("interface[@type='network']", "a network of libvirt's of that name"),
)
"""What of a domain needs another program or network, and which."""


def exported(spec: Path, tiny: ImageFacts) -> formats.Written:
    """A golden spec written for libvirt, on a host without KVM."""
    machine = tomllib.loads(spec.read_text())
    machine.setdefault("name", spec.stem)
    direct = {"kernel": tiny.kernel, "initrd": tiny.initrd, "cmdline": tiny.cmdline}
    described = load_spec(machine)
    image = "" if described.image == "tiny" else "/srv/debian.qcow2"
    return formats.write(described, Place(image=image, **direct), "libvirt")


def startable(text: str, tiny: ImageFacts, scratch: Path) -> str:
    """The domain with tiny's kernel in place of a loader on a disk, and an empty disk where the overlay would be."""
    root = fromstring(text)
    os_, devices = root.find("os"), root.find("devices")
    assert os_ is not None and devices is not None
    if os_.find("kernel") is None:
        for tag in ("kernel", "initrd", "cmdline"):
            SubElement(os_, tag).text = getattr(tiny, tag)
    for number, source in enumerate(devices.findall("disk/source")):
        disk = scratch / f"{root.findtext('name')}-{number}.qcow2"
        write_overlay(disk, 64 << 20)
        os.chmod(disk, 0o666)  # noqa: PTH101
        source.set("file", str(disk))
    for path, _ in TAKEN_OUT:
        for node in devices.findall(path):
            devices.remove(node)
    _console(devices)
    return tostring(root, encoding="unicode")


def _console(devices: Element) -> None:
    """The tests' daemon has a /dev of its own, where QEMU's user makes no terminals."""
    for serial in devices.findall("serial[@type='pty']"):
        serial.set("type", "null")
