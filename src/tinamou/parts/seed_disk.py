"""First-boot configuration as the guest finds it: a small disc labelled CIDATA."""

from __future__ import annotations

from tinamou.blueprint import BuildIso, Contribution, Element, HandOver, MakeSshKey, Value, Why
from tinamou.parts.seed import SeedSpec, documents
from tinamou.parts.settled import Need, PciSlot, Settled


def needs(settled_seed: str) -> tuple[Need, ...]:
    """A slot for the disc, where the image reads one."""
    return (PciSlot("seed-dev"),) if settled_seed == "nocloud" else ()


def contribute(spec: SeedSpec, macs: tuple[str, ...], settled: Settled) -> Contribution:
    """An ssh key of the machine's own, and the disc that tells the guest about it."""
    if settled.facts.image.seed != "nocloud":
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
    disc = BuildIso(path, "CIDATA", documents(spec, settled.facts.place.name, macs), why, settled.owner)
    hand = HandOver(path, "read", Why("confinement", "QEMU is handed the open disc"))
    return Contribution((Element("blockdev", node, why), Element("device", device, why)), (), (key, disc, hand))
