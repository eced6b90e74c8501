"""Images of the catalogue that were pulled before, or will be: where they lie, and where they came from.

::

    images/ubuntu-24.04/x86_64/.lock              held while downloading
    images/ubuntu-24.04/x86_64/.part, .part.json  a download under way, and what its bytes are part of
    images/ubuntu-24.04/x86_64/3d94c9dd66d8/      digest: disk.qcow2, facts.json (what it is), origin.json (its checks)
    images/ubuntu-24.04/x86_64/current            link to the folder in use

A folder never changes, so a disk that rests on an older one keeps its ground when a newer one is pulled.
"""

from __future__ import annotations

from pathlib import Path

from tinamou.facts.image import ImageFacts
from tinamou.images import store
from tinamou.images.catalog import CatalogEntry
from tinamou.late import dataclass, replace
from tinamou.units import Size

__all__ = ["Origin", "cached", "described", "predicted"]


@dataclass(frozen=True)
class Origin:
    """Where an image came from and how it was checked.

    ``digest`` is that of the file as the vendor publishes it, ``content`` that of the disk here (they differ when it was
    packed), both as ``sha256:…``. ``signer`` is the fingerprint of the key when a signature was checked, else ``unsigned``
    says why not. ``pulled`` is seconds since 1970.
    """

    url: str
    digest: str
    content: str
    signer: str = ""
    unsigned: str = ""
    pulled: float = 0.0


def cached(entry: CatalogEntry) -> ImageFacts | None:
    """The image as it was pulled before, None when it was not."""
    facts = store.pointed_at(store.builds_of(entry.name, entry.arch) / "current")
    return facts if facts and Path(facts.disk).is_file() else None


def predicted(entry: CatalogEntry) -> ImageFacts:
    """The facts and the path the image will have once it is pulled."""
    format = entry.format.partition(".")[0]
    disk = store.builds_of(entry.name, entry.arch) / "current" / f"disk.{format}"
    return replace(described(entry, str(disk), format, Size(0)), built=False)


def described(entry: CatalogEntry, disk: str, format: str, size: Size) -> ImageFacts:
    """The facts of an image whose disk is that file."""
    return ImageFacts(
        name=entry.name, arch=entry.arch, disk=disk, format=format, size=size, boots=entry.boots,
        agent=entry.agent, seed=entry.seed, ssh=bool(entry.seed), user=entry.user,
    )  # fmt: skip
