"""First-boot configuration as the guest finds it: a small disc labelled CIDATA."""

from __future__ import annotations

from tinamou.blueprint import BuildIso, Contribution, Element, HandOver, MakeSshKey, Value, Why
from tinamou.errors import Problem
from tinamou.late import fields
from tinamou.parts import net
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved
from tinamou.parts.seed import SeedSpec, documents


def wanted(resolved: Resolved) -> bool:
    """Where the image is known to read one, and where the user asks for something only a seed can bring."""
    image = resolved.facts.image
    asked = resolved.spec.seed != SeedSpec() or bool(net.fixed(resolved))
    return bool(image.disk) and (image.seed == "nocloud" or asked)


def needs(resolved: Resolved) -> tuple[Need, ...]:
    """A slot for the disc."""
    return (PciSlot("seed-dev"),) if wanted(resolved) else ()


def check(resolved: Resolved) -> list[Problem]:
    """A seed for a guest without a disk, which has no cloud-init to read it."""
    image, seed, nothing = resolved.facts.image, resolved.spec.seed, SeedSpec()
    if image.disk:
        return []
    reason = f"the guest {image.name} reads no first-boot configuration"
    asked = [one.name for one in fields(seed) if getattr(seed, one.name) != getattr(nothing, one.name)]
    return [Problem(f"seed.{name}", None, reason, "use debian, or leave it out") for name in asked]


def contribute(resolved: Resolved) -> Contribution:
    """An ssh key of the machine's own, and the disc that tells the guest about it."""
    if not wanted(resolved):
        return Contribution()
    why = Why("part seed", "cloud-init in the guest reads user, key, hostname and network from this disc (NoCloud)")
    path = resolved.file("seed.iso")
    node: dict[str, Value] = {"driver": "raw", "node-name": "seed", "read-only": True}
    node["file"] = {"driver": "file", "filename": path, "read-only": True}
    device = {"driver": "virtio-blk-pci", "id": "seed-dev", "drive": "seed", "addr": resolved.pci["seed-dev"]}
    own = Why("part seed", "ssh into the guest works with a key of its own and no password")
    key = MakeSshKey(resolved.file("id_ed25519"), own)
    place, macs = resolved.facts.place, net.macs(resolved)
    files = documents(resolved.spec.seed, place.known_as, macs, net.fixed(resolved), renew=place.copied)
    disc = BuildIso(path, "CIDATA", files, why, resolved.owner)
    hand = HandOver(path, "read", Why("confinement", "QEMU is handed the open disc"))
    return Contribution((Element("blockdev", node, why), Element("device", device, why)), steps=(key, disc, hand))


PART = Part(contribute, needs, check)
