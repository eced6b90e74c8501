"""First-boot configuration as the guest finds it: a small disc labelled CIDATA, or files that the firmware hands on."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tinamou.blueprint import BuildIso, Contribution, Element, Flag, HandOver, MakeSshKey, Note, Value, Why, WriteText
from tinamou.errors import Problem
from tinamou.facts import files
from tinamou.late import fields, replace
from tinamou.parts import net
from tinamou.parts.ignition import COMBUSTION, IGNITION, unsure, with_key
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved
from tinamou.parts.seed import MACHINE_KEY, SeedSpec, documents


def wanted(resolved: Resolved) -> bool:
    """Where the image is known to read one, and where the user asks for something only a seed can bring."""
    image, seed = resolved.facts.image, resolved.spec.seed
    if not image.disk:
        return False
    read = replace(seed, ignition="", combustion="", user="" if seed.ignition else seed.user)
    read = replace(read, agent="start") if seed.agent == "none" else read
    asked = read != SeedSpec() or bool(net.fixed(resolved))
    known = image.seed == "nocloud" and seed.agent != "none"
    return known or asked


def needs(resolved: Resolved) -> tuple[Need, ...]:
    """A slot for the disc."""
    return (PciSlot("seed-dev"),) if wanted(resolved) else ()


def check(resolved: Resolved) -> list[Problem]:
    """A seed for a guest without a disk, which has no cloud-init to read it."""
    image, seed = resolved.facts.image, resolved.spec.seed
    nothing = SeedSpec(agent=seed.agent if seed.agent == "none" else "start")
    if image.disk:
        return list(_elsewhere(resolved))
    reason = f"the guest {image.name} reads no first-boot configuration"
    asked = [one.name for one in fields(seed) if getattr(seed, one.name) != getattr(nothing, one.name)]
    return [Problem(f"seed.{name}", None, reason, "use debian, or leave it out") for name in asked]


_SOURCE = re.compile(r"ds=nocloud(?:-net)?(?:;[^;\s]+)*?;(?:s|seedfrom)=(?P<url>[^;\s,]*)")
"""How SMBIOS and a kernel's command line name the place of a seed (source: the cloud-init reference, NoCloud)."""


def _elsewhere(resolved: Resolved) -> Iterator[Problem]:
    """A seed of another place: beside the disc, cloud-init takes some of either; by HTTP it is read as the name says."""
    spec = resolved.spec
    places = {"smbios.serial": spec.smbios.serial, "boot.cmdline": spec.boot.cmdline}
    places |= {f"qemu_args[{number}]": text for number, text in enumerate(spec.qemu_args)}
    for field, text in places.items():
        if (found := _SOURCE.search(text)) is None:
            continue
        if not found["url"].endswith("/"):
            reason = "cloud-init puts its files' names right behind this"
            yield Problem(field, found["url"], reason, "end it with /")
        if wanted(resolved):
            reason = "beside the disc, cloud-init takes user-data from there, instance id and host name from the disc"
            yield Problem(field, text, reason, 'set seed.agent = "none" and nothing else in [seed]: the disc is left out')


def contribute(resolved: Resolved) -> Contribution:
    """An ssh key of the machine's own, and what tells the guest about it."""
    disc = _disc(resolved) if wanted(resolved) else Contribution()
    firmware = _by_firmware(resolved)
    if not disc.steps and not firmware.steps:
        return Contribution()
    own = Why("part seed", "ssh into the guest works with a key of its own and no password")
    key = Contribution(steps=(MakeSshKey(resolved.file("id_ed25519"), own),))
    return Contribution.merge([key, disc, firmware])


def _by_firmware(resolved: Resolved) -> Contribution:
    """Files in QEMU's fw_cfg: Ignition's configuration, with the machine's key, and Combustion's script."""
    seed = resolved.spec.seed
    texts = {"ignition": (IGNITION, with_key(seed.ignition, seed.user, MACHINE_KEY) if seed.ignition else "")}
    texts["combustion"] = (COMBUSTION, seed.combustion)
    found = []
    for kind, (name, text) in texts.items():
        if text:
            why = Why(f"spec seed.{kind}", f"the guest reads it from the firmware at its first boot, as {name}")
            path = resolved.file(kind)
            hand = HandOver(path, "secret", Why("confinement", "QEMU is handed a copy in memory"))
            flag = Flag("fw_cfg", why, options={"name": name, "file": path})
            found.append(Contribution(flags=(flag,), steps=(WriteText(path, text, why), hand)))
    if seed.ignition and (doubt := unsure(seed.ignition)):
        note = Note("warning", doubt, Why("spec seed.ignition", "the version it names"))
        found.append(Contribution(notes=(note,)))
    return Contribution.merge(found)


def _disc(resolved: Resolved) -> Contribution:
    why = Why("part seed", "cloud-init in the guest reads user, key, hostname and network from this disc (NoCloud)")
    path = resolved.file(files.SEED)
    node: dict[str, Value] = {"driver": "raw", "node-name": "seed", "read-only": True}
    node["file"] = {"driver": "file", "filename": path, "read-only": True}
    device = {"driver": "virtio-blk-pci", "id": "seed-dev", "drive": "seed", "addr": resolved.pci["seed-dev"]}
    place, macs = resolved.facts.place, net.macs(resolved)
    told = documents(resolved.spec.seed, place.known_as, macs, net.fixed(resolved), renew=place.copied)
    disc = BuildIso(path, "CIDATA", told, why, resolved.owner)
    hand = HandOver(path, "read", Why("confinement", "QEMU is handed the open disc"))
    return Contribution((Element("blockdev", node, why), Element("device", device, why)), steps=(disc, hand))


PART = Part(contribute, needs, check)
