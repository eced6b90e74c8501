"""First-boot configuration as the guest finds it: a small disc labelled CIDATA."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.blueprint import BuildIso, Contribution, Element, HandOver, MakeSshKey, Value, Why
from tinamou.errors import Problem
from tinamou.facts import ImageFacts
from tinamou.parts.seed import FixedAddress, SeedSpec, documents
from tinamou.parts.settled import Need, PciSlot, Settled


def wanted(spec: SeedSpec, image: ImageFacts) -> bool:
    """Where the image is known to read one, and where the user asks for something only a seed can bring."""
    return bool(image.disk) and (image.seed == "nocloud" or spec != SeedSpec())


def needs(spec: SeedSpec, image: ImageFacts) -> tuple[Need, ...]:
    """A slot for the disc."""
    return (PciSlot("seed-dev"),) if wanted(spec, image) else ()


def check(spec: SeedSpec, image: ImageFacts) -> list[Problem]:
    """A seed for a guest without a disk, which has no cloud-init to read it."""
    if image.disk or spec == SeedSpec():
        return []
    return [
        Problem(
            "seed", None, f"the guest {image.name} reads no first-boot configuration", "use debian, or leave the seed out"
        )
    ]


def contribute(spec: SeedSpec, macs: Mapping[str, str], settled: Settled, fixed: Mapping[str, FixedAddress]) -> Contribution:
    """An ssh key of the machine's own, and the disc that tells the guest about it."""
    if not wanted(spec, settled.facts.image):
        return Contribution()
    why = Why("part seed", "cloud-init in the guest reads user, key, hostname and network from this disc (NoCloud)")
    path = settled.file("seed.iso")
    node: dict[str, Value] = {"driver": "raw", "node-name": "seed", "read-only": True}
    node["file"] = {"driver": "file", "filename": path, "read-only": True}
    device: dict[str, Value] = {
        "driver": "virtio-blk-pci",
        "id": "seed-dev",
        "drive": "seed",
        "addr": settled.pci["seed-dev"],
    }
    key = MakeSshKey(
        settled.file("id_ed25519"), Why("part seed", "ssh into the guest works with a key of its own and no password")
    )
    disc = BuildIso(path, "CIDATA", documents(spec, settled.facts.place.name, macs, fixed), why, settled.owner)
    hand = HandOver(path, "read", Why("confinement", "QEMU is handed the open disc"))
    return Contribution((Element("blockdev", node, why), Element("device", device, why)), (), (key, disc, hand))
